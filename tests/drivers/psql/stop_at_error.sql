-- modes: session transaction statement
\set ON_ERROR_STOP on
SELECT 'first';
SELECT 1 / 0;
SELECT 'never printed';
