-- What code may run on this schema. A later migration replaces the function; its downgrade puts back the one before.
CREATE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)
LANGUAGE sql IMMUTABLE AS $$ SELECT '0005', '0004' $$;
GRANT EXECUTE ON FUNCTION brain.schema_compatibility() TO brain_app;
