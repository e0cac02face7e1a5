//! The system's libpam, loaded when it is needed: building this program needs neither its headers nor itself.
//!
//! Constants and types are those of Linux-PAM. Each call makes a PAM handle of its own and ends it, on one thread: that is how
//! libpam may be used by several threads at once.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use tracing::debug;

use super::{PamError, Question, SERVICE};

/// The library's name as the loader knows it; the number is that of its interface.
const FILE: &str = "libpam.so.0";

const PAM_SUCCESS: c_int = 0;
const PAM_BUF_ERR: c_int = 5;
const PAM_CONV_ERR: c_int = 19;
/// Modules need not say anything.
const PAM_SILENT: c_int = 0x8000;
/// Users without a password are not let in.
const PAM_DISALLOW_NULL_AUTHTOK: c_int = 1;
/// The item that holds the client's address.
const PAM_RHOST: c_int = 4;
const PAM_PROMPT_ECHO_OFF: c_int = 1;
const PAM_ERROR_MSG: c_int = 3;
const PAM_TEXT_INFO: c_int = 4;
/// Most messages in one turn of a conversation.
const PAM_MAX_NUM_MSG: c_int = 32;

/// PAM's own; only pointers to it exist.
#[repr(C)]
struct Handle {
    _private: [u8; 0],
}

#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct Response {
    text: *mut c_char,
    /// Always zero.
    code: c_int,
}

type Converse = extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int;

#[repr(C)]
struct Conversation {
    converse: Converse,
    data: *mut c_void,
}

type Start = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const Conversation,
    *mut *mut Handle,
) -> c_int;
type SetItem = unsafe extern "C" fn(*mut Handle, c_int, *const c_void) -> c_int;
type Step = unsafe extern "C" fn(*mut Handle, c_int) -> c_int;
type Describe = unsafe extern "C" fn(*mut Handle, c_int) -> *const c_char;

/// libpam's functions.
pub struct Library {
    start: Start,
    set_item: SetItem,
    authenticate: Step,
    acct_mgmt: Step,
    end: Step,
    describe: Describe,
    /// Keeps the functions where they are.
    _library: libloading::Library,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FILE)
    }
}

impl Library {
    /// Loads it, and finds its functions.
    ///
    /// # Errors
    /// It is not there, or lacks a function.
    pub fn load() -> Result<Library, PamError> {
        let missing = |error: libloading::Error| PamError::NoLibrary(error.to_string());
        // SAFETY: loading runs the library's initialisers. This is the system's libpam, found by the system's loader by the name
        // under which every program that was linked with it finds it; it asks for nothing to be done before.
        let library = unsafe { libloading::Library::new(FILE) }.map_err(missing)?;
        // SAFETY: the types are those that Linux-PAM declares for these names, in an interface that has not changed under
        // the name `libpam.so.0`. They are plain function pointers, valid as long as the library is loaded, which the
        // field `_library` of the same value sees to.
        unsafe {
            Ok(Library {
                start: *library.get::<Start>(c"pam_start").map_err(missing)?,
                set_item: *library.get::<SetItem>(c"pam_set_item").map_err(missing)?,
                authenticate: *library.get::<Step>(c"pam_authenticate").map_err(missing)?,
                acct_mgmt: *library.get::<Step>(c"pam_acct_mgmt").map_err(missing)?,
                end: *library.get::<Step>(c"pam_end").map_err(missing)?,
                describe: *library.get::<Describe>(c"pam_strerror").map_err(missing)?,
                _library: library,
            })
        }
    }

    /// Whether PAM lets this user in with this password, from there, now. Blocks for as long as PAM's modules do.
    ///
    /// # Errors
    /// It does not.
    pub fn ask(&self, question: &Question) -> Result<(), PamError> {
        let conversation = Conversation {
            converse,
            data: question.password.as_ptr().cast_mut().cast(),
        };
        let mut session = self.begin(question, &conversation)?;
        session.run(question)
    }

    fn begin<'a>(
        &'a self,
        question: &'a Question,
        conversation: &'a Conversation,
    ) -> Result<Session<'a>, PamError> {
        let service = std::ffi::CString::new(SERVICE).map_err(|_| PamError::Unfit)?;
        let mut handle = ptr::null_mut();
        // SAFETY: two strings that end in a zero and outlive the call, which copies them; a conversation, copied as well,
        // whose data outlives the handle: both live in `ask`, and `Session` ends the handle when it is dropped, before them;
        // and a place for the handle.
        let code = unsafe {
            (self.start)(
                service.as_ptr(),
                question.user.as_ptr(),
                conversation,
                &raw mut handle,
            )
        };
        if code != PAM_SUCCESS || handle.is_null() {
            let why = format!("code {code}");
            return Err(PamError::Refused("pam_start", why));
        }
        Ok(Session {
            library: self,
            handle,
            last: PAM_SUCCESS,
            _conversation: conversation,
        })
    }
}

/// A PAM handle; ended when dropped.
struct Session<'a> {
    library: &'a Library,
    /// Valid until `pam_end`, which only `drop` calls.
    handle: *mut Handle,
    /// What the last function said, which `pam_end` wants to know.
    last: c_int,
    _conversation: &'a Conversation,
}

impl Session<'_> {
    fn run(&mut self, question: &Question) -> Result<(), PamError> {
        // SAFETY: the handle is valid, and this item is a string, which is copied.
        self.last = unsafe {
            (self.library.set_item)(self.handle, PAM_RHOST, question.from.as_ptr().cast())
        };
        self.check("pam_set_item")?;
        let flags = PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK;
        // SAFETY: the handle is valid.
        self.last = unsafe { (self.library.authenticate)(self.handle, flags) };
        self.check("pam_authenticate")?;
        // SAFETY: the handle is valid.
        self.last = unsafe { (self.library.acct_mgmt)(self.handle, flags) };
        self.check("pam_acct_mgmt")
    }

    fn check(&self, function: &'static str) -> Result<(), PamError> {
        match self.last {
            PAM_SUCCESS => Ok(()),
            code => Err(PamError::Refused(function, self.describe(code))),
        }
    }

    fn describe(&self, code: c_int) -> String {
        // SAFETY: the handle is valid; the function takes any code.
        let text = unsafe { (self.library.describe)(self.handle, code) };
        if text.is_null() {
            return format!("code {code}");
        }
        // SAFETY: not null, so it is a string that ends in a zero, which stays there at least until the next call.
        let text = unsafe { CStr::from_ptr(text) };
        text.to_string_lossy().into_owned()
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle is valid, and nobody uses it after this.
        unsafe {
            (self.library.end)(self.handle, self.last);
        }
    }
}

/// What PAM's modules call when they have something to say, or to ask. Only what is asked for without an echo is answered, with
/// the password; whoever asks for something else gets nothing, and the login fails.
extern "C" fn converse(
    count: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    // Unwinding into C would end the process.
    let conversed = catch_unwind(AssertUnwindSafe(|| {
        if !(1..=PAM_MAX_NUM_MSG).contains(&count)
            || messages.is_null()
            || responses.is_null()
            || data.is_null()
        {
            return PAM_CONV_ERR;
        }
        // SAFETY: the pointers are not null. `data` is what `Library::ask` gave, a string that ends in a zero and lives
        // until its session has ended. By PAM's contract there are `count` pointers to messages (in an array of pointers, as
        // Linux-PAM has it), valid during this call, and a place for the responses.
        unsafe { respond(count as usize, messages, responses, data.cast()) }
    }));
    conversed.unwrap_or(PAM_CONV_ERR)
}

/// # Safety
/// `messages` points to `count` pointers to valid messages, `responses` can be written to, and `password` points to a string that
/// ends in a zero.
unsafe fn respond(
    count: usize,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    password: *const c_char,
) -> c_int {
    // PAM frees it, and what its elements point to, with the C library's `free`.
    // SAFETY: allocating has no conditions. The zeros are valid responses: null, and code 0.
    let answers: *mut Response = unsafe { libc::calloc(count, size_of::<Response>()) }.cast();
    if answers.is_null() {
        return PAM_BUF_ERR;
    }
    for at in 0..count {
        // SAFETY: `at` is below `count`, for which the caller vouches; a null pointer is not followed.
        let message = unsafe { (*messages.add(at)).as_ref() };
        let code = match message.map(|message| message.style) {
            Some(PAM_PROMPT_ECHO_OFF) => {
                // SAFETY: a string, as the caller vouches; strdup copies up to its zero. `at` is within the array.
                unsafe {
                    let copy = libc::strdup(password);
                    (*answers.add(at)).text = copy;
                    if copy.is_null() {
                        PAM_BUF_ERR
                    } else {
                        PAM_SUCCESS
                    }
                }
            }
            Some(PAM_ERROR_MSG | PAM_TEXT_INFO) => {
                debug!("PAM has something to say, which nobody hears");
                PAM_SUCCESS
            }
            _ => PAM_CONV_ERR,
        };
        if code != PAM_SUCCESS {
            // SAFETY: made above, with this count, and given to nobody yet.
            unsafe { forget(answers, count) };
            return code;
        }
    }
    // SAFETY: the caller vouches for the place.
    unsafe { *responses = answers };
    PAM_SUCCESS
}

/// Wipes and frees responses.
///
/// # Safety
/// `answers` is an array of `count` responses from calloc, whose texts are null or from strdup; nobody uses it after this.
unsafe fn forget(answers: *mut Response, count: usize) {
    for at in 0..count {
        // SAFETY: within the array, as the caller vouches; a text is a string that ends in a zero, and is ours.
        unsafe {
            let text = (*answers.add(at)).text;
            if !text.is_null() {
                let length = libc::strlen(text);
                let bytes = std::slice::from_raw_parts_mut(text.cast::<u8>(), length);
                zeroize::Zeroize::zeroize(bytes);
                libc::free(text.cast());
            }
        }
    }
    // SAFETY: from calloc, as the caller vouches.
    unsafe { libc::free(answers.cast()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    /// What `converse` does with messages of these styles.
    fn talk(styles: &[c_int]) -> (c_int, Vec<Option<String>>) {
        let password = CString::new("pencil").unwrap();
        let messages: Vec<Message> = styles
            .iter()
            .map(|style| Message {
                style: *style,
                text: c"?".as_ptr(),
            })
            .collect();
        let mut pointers: Vec<*const Message> = messages.iter().map(ptr::from_ref).collect();
        let mut answers = ptr::null_mut();
        let data = password.as_ptr().cast_mut().cast();
        let count = styles.len() as c_int;
        let code = converse(count, pointers.as_mut_ptr(), &raw mut answers, data);
        if code != PAM_SUCCESS {
            assert!(answers.is_null());
            return (code, vec![]);
        }
        let texts = (0..styles.len())
            .map(|at| {
                // SAFETY: `converse` said that there are as many answers as messages.
                let text = unsafe { (*answers.add(at)).text };
                let string = |text| {
                    // SAFETY: not null, so a copy of the password.
                    unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned()
                };
                (!text.is_null()).then(|| string(text))
            })
            .collect();
        // SAFETY: made by `converse` with this count.
        unsafe { forget(answers, styles.len()) };
        (code, texts)
    }

    #[test]
    fn only_what_is_asked_without_an_echo_is_answered() {
        let pencil = || Some("pencil".to_owned());
        assert_eq!(talk(&[PAM_PROMPT_ECHO_OFF]), (PAM_SUCCESS, vec![pencil()]));
        let styles = [PAM_TEXT_INFO, PAM_PROMPT_ECHO_OFF, PAM_ERROR_MSG];
        assert_eq!(talk(&styles), (PAM_SUCCESS, vec![None, pencil(), None]));
        for styles in [
            &[2][..],
            &[PAM_PROMPT_ECHO_OFF, 2],
            &[0],
            &[5],
            &[],
            &[PAM_TEXT_INFO; 33],
        ] {
            assert_eq!(talk(styles), (PAM_CONV_ERR, vec![]), "{styles:?}");
        }
    }
}
