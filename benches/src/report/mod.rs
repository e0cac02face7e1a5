//! What was seen, told: as text, as JSON, as a page, as a picture.

pub mod text;
