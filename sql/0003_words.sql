-- What the text search of 0004 looks things up by: words, and grams for what no cutter cuts right.

-- Words. Where the extension zhparser is, the database cuts; else search.query.words does, and its words are kept as they are: PostgreSQL's
-- default parser would take a-102 for a and -102, and www.example.com/x for a host and a path.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'zhparser') THEN
        BEGIN
            CREATE EXTENSION zhparser SCHEMA public; -- outside of ours, so that a dump restores without our schema
        EXCEPTION WHEN undefined_file OR feature_not_supported OR insufficient_privilege OR invalid_parameter_value THEN
            NULL; -- not installed, or not ours to create
        END;
    END IF;
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'zhparser') THEN
        CREATE TEXT SEARCH CONFIGURATION immich_ai.chinese (PARSER = zhparser);
        -- All of its token types: a type without a dictionary is a word that can never be found.
        EXECUTE (
            SELECT format('ALTER TEXT SEARCH CONFIGURATION immich_ai.chinese ADD MAPPING FOR %s WITH simple', string_agg(quote_ident(alias), ', '))
            FROM ts_token_type('zhparser')
        );
        CREATE OR REPLACE FUNCTION immich_ai.document_words(folded text, cut text) RETURNS tsvector
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN strip(to_tsvector('immich_ai.chinese'::regconfig, left(folded, 200000)));
        CREATE FUNCTION immich_ai.query_words(needles text[], cut text) RETURNS tsquery
        LANGUAGE sql STABLE PARALLEL SAFE
        RETURN plainto_tsquery('immich_ai.chinese'::regconfig, array_to_string(needles, ' '));
        UPDATE immich_ai.setting SET value = 'zhparser' WHERE name = 'cutter';
    ELSE
        CREATE OR REPLACE FUNCTION immich_ai.document_words(folded text, cut text) RETURNS tsvector
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN array_to_tsvector(array_remove(string_to_array(left(cut, 200000), ' '), ''));
        CREATE FUNCTION immich_ai.query_words(needles text[], cut text) RETURNS tsquery
        LANGUAGE sql STABLE PARALLEL SAFE
        RETURN coalesce(cut, (SELECT string_agg(quote_literal(needle), ' & ') FROM unnest(needles) AS needle))::tsquery;
    END IF;
END
$$;
COMMENT ON FUNCTION immich_ai.query_words(text[], text) IS
    'What document_words is matched with. needles: folded texts that must all be there. cut: their words as search.query.words.words_query writes '
    'them, looked at where Python cuts; null: each needle is a word.';

-- Grams: what a substring is looked up by, without pg_trgm. Of the characters of a folded text: each that is not ASCII; each pair that
-- is not two letters or digits of ASCII; each three of ASCII. Grams never cross a blank. If a text contains another, its grams contain
-- the other's; the reverse is checked on what is found. One or two letters or digits have no gram: they are found as words.
CREATE FUNCTION immich_ai.grams(folded text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000
RETURN (
    SELECT coalesce(array_agg(DISTINCT gram), '{}')
    FROM (
        SELECT a, lead(a, 1, ' ') OVER w AS b, lead(a, 2, ' ') OVER w AS c
        FROM unnest(string_to_array(left(folded, 100000), NULL)) WITH ORDINALITY AS characters (a, n)
        WINDOW w AS (ORDER BY n)
    ) AS runs,
    LATERAL (SELECT ascii(a) AS x, ascii(b) AS y, ascii(c) AS z) AS codes,
    LATERAL (VALUES
        (CASE WHEN x > 126 THEN a END),
        (CASE WHEN x > 32 AND y > 32 AND NOT (x BETWEEN 48 AND 57 OR x BETWEEN 97 AND 122)
                OR x > 32 AND y > 32 AND NOT (y BETWEEN 48 AND 57 OR y BETWEEN 97 AND 122) THEN a || b END),
        (CASE WHEN x BETWEEN 33 AND 126 AND y BETWEEN 33 AND 126 AND z BETWEEN 33 AND 126 THEN a || b || c END)
    ) AS grams (gram)
    WHERE gram IS NOT NULL
);

CREATE INDEX ocr_document_grams ON immich_ai.ocr_document USING gin (immich_ai.grams(folded));

-- Ranking reads folded and words of every candidate: they stay in the row where they fit. The text as read is only shown.
ALTER TABLE immich_ai.ocr_document
    ALTER COLUMN folded SET STORAGE MAIN,
    ALTER COLUMN words SET STORAGE MAIN,
    ALTER COLUMN text SET STORAGE EXTENDED,
    ALTER COLUMN cut SET STORAGE EXTENDED;
