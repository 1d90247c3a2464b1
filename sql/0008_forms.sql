-- Documents know more of a text: which lines go on in the next, and the forms of numbers and dates. And the words of all texts are
-- listed, for what is typed almost right.

ALTER TABLE immich_ai.ocr_document
    ADD COLUMN pieces integer[] NOT NULL DEFAULT '{}',
    ADD COLUMN form integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN immich_ai.ocr_document.folded IS
    'text folded by search.query.folding, one line a line; behind a line that is a form feed, the blocks of several lines, one a line: what is '
    'searched for substrings.';
COMMENT ON COLUMN immich_ai.ocr_document.pieces IS
    'Of what the blocks in folded are made: three numbers for each piece, its line from 1, its first character in folded from 1, its length.';
COMMENT ON COLUMN immich_ai.ocr_document.cut IS
    'Words by search.query.words and forms of numbers and dates by search.query.forms, one blank between. Where the database cuts, the forms alone '
    'are used of it.';
COMMENT ON COLUMN immich_ai.ocr_document.form IS
    'How the row was made: search.store.documents.FORM. search.store.refresh makes older ones anew.';

-- Words of letters, of everybody's texts. They are never taken away: a word that is in no text any more finds nothing.
CREATE TABLE immich_ai.word (
    word text COLLATE "C" PRIMARY KEY,
    sounds text[] NOT NULL DEFAULT '{}'
);
COMMENT ON COLUMN immich_ai.word.sounds IS 'Of Chinese words: Pinyin without tones and blanks, in each reading; u for ü.';
CREATE INDEX word_sounds ON immich_ai.word USING gin (sounds);
CREATE INDEX word_backwards ON immich_ai.word (reverse(word)) WHERE sounds = '{}';
CREATE INDEX word_stem ON immich_ai.word ((ts_lexize('pg_catalog.english_stem'::regdictionary, word::text))) WHERE sounds = '{}';

-- Roles that may use documents may use words alike.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT DISTINCT r.rolname, a.privilege_type
        FROM pg_class c, LATERAL aclexplode(c.relacl) a JOIN pg_roles r ON r.oid = a.grantee
        WHERE c.oid = 'immich_ai.ocr_document'::regclass AND a.grantee <> c.relowner AND a.privilege_type IN ('SELECT', 'INSERT')
    LOOP
        EXECUTE format('GRANT %s ON immich_ai.word TO %I', given.privilege_type, given.rolname);
    END LOOP;
END
$$;

-- Where zhparser cuts, the forms come from Python none the less.
DO $$
BEGIN
    IF (SELECT value = 'zhparser' FROM immich_ai.setting WHERE name = 'cutter') THEN
        CREATE OR REPLACE FUNCTION immich_ai.document_words(folded text, cut text) RETURNS tsvector
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN strip(to_tsvector('immich_ai.chinese'::regconfig, left(folded, 200000)))
            || array_to_tsvector(ARRAY(SELECT w FROM unnest(string_to_array(left(cut, 200000), ' ')) AS w WHERE w ~ '^[=~]'));
    END IF;
END
$$;

-- What Immich read in each picture, now with the corners of the lines, [x1, y1, ... x4, y4] of each (nulls where it keeps none).
CREATE OR REPLACE VIEW immich_ai.source_document AS
    SELECT s.asset_id, s.read_at,
           coalesce((SELECT g.digest FROM immich_ai.source_digest g WHERE g.asset_id = s.asset_id), md5('')) AS digest,
           l.lines, l.boxes
    FROM immich_ai.source_read s,
         LATERAL (
             SELECT array_agg(l.text ORDER BY l.n) AS lines,
                    array_agg(ARRAY[l.x1, l.y1, l.x2, l.y2, l.x3, l.y3, l.x4, l.y4] ORDER BY l.n) AS boxes
             FROM immich_ai.source_line l WHERE l.asset_id = s.asset_id
         ) l;

DROP FUNCTION immich_ai.stale_documents(uuid, integer, boolean);

-- For search.immich.sync: the next pictures, by id, whose document is missing or older than what Immich read; with `thorough`, also those whose
-- lines are others than then (an edit in Immich hides lines and leaves "ocrAt" as it is; the fork of 1.134 has no "ocrAt").
CREATE FUNCTION immich_ai.stale_documents(after uuid, batch integer, thorough boolean)
RETURNS TABLE (asset_id uuid, read_at timestamptz, digest text, lines text[], boxes real[], known boolean)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF thorough THEN
        RETURN QUERY
        SELECT n.asset_id, n.read_at, n.digest, n.lines, n.boxes, s.known
        FROM (
            SELECT r.asset_id, d.asset_id IS NOT NULL AS known
            FROM immich_ai.source_read r
            LEFT JOIN immich_ai.ocr_document d ON d.asset_id = r.asset_id
            LEFT JOIN immich_ai.source_digest g ON g.asset_id = r.asset_id
            WHERE r.asset_id > after
              AND (d.asset_id IS NULL OR d.source_read_at IS DISTINCT FROM r.read_at
                   OR d.source_digest IS DISTINCT FROM coalesce(g.digest, md5('')))
            ORDER BY r.asset_id LIMIT batch
        ) s JOIN immich_ai.source_document n ON n.asset_id = s.asset_id ORDER BY n.asset_id;
    ELSE
        RETURN QUERY
        SELECT n.asset_id, n.read_at, n.digest, n.lines, n.boxes, s.known
        FROM (
            SELECT r.asset_id, d.asset_id IS NOT NULL AS known
            FROM immich_ai.source_read r
            LEFT JOIN immich_ai.ocr_document d ON d.asset_id = r.asset_id
            WHERE r.asset_id > after AND (d.asset_id IS NULL OR d.source_read_at IS DISTINCT FROM r.read_at)
            ORDER BY r.asset_id LIMIT batch
        ) s JOIN immich_ai.source_document n ON n.asset_id = s.asset_id ORDER BY n.asset_id;
    END IF;
END
$$;

-- The lines of one picture that contain one of `needles` (folded). The document's lines stand in the order of the source's; where their
-- numbers differ (Immich has read anew and search.immich.sync has not seen it yet) all lines come, and search.query.find looks.
CREATE OR REPLACE FUNCTION immich_ai.highlight(asset_id uuid, needles text[])
RETURNS TABLE (n integer, text text, box real[], box_score real, text_score real)
LANGUAGE sql STABLE ROWS 5 AS $$
    WITH folded AS MATERIALIZED (
        SELECT string_to_array(split_part(d.folded, E'\n\f\n', 1), E'\n') AS lines
        FROM immich_ai.ocr_document d WHERE d.asset_id = highlight.asset_id
    ),
    lines AS MATERIALIZED (
        SELECT l.*, row_number() OVER (ORDER BY l.n) AS at, count(*) OVER () AS total
        FROM immich_ai.source_line l WHERE l.asset_id = highlight.asset_id
    )
    SELECT l.n, l.text, ARRAY[l.x1, l.y1, l.x2, l.y2, l.x3, l.y3, l.x4, l.y4], l.box_score, l.text_score
    FROM lines l CROSS JOIN folded f
    WHERE l.total <> cardinality(f.lines)
       OR EXISTS (SELECT FROM unnest(needles) AS needle WHERE strpos(f.lines[l.at], needle) > 0)
    ORDER BY l.n
$$;

-- The same for a hit that those lines do not explain: also the lines over whose ends a needle goes. `across` has the needle's number among
-- `needles`, and where its part starts and ends in the folded line, three numbers for each. Where no needle is in any line, something else was
-- found (a number in another form, a word that is almost it): all lines come, 400 at most.
CREATE FUNCTION immich_ai.highlight_across(asset_id uuid, needles text[])
RETURNS TABLE (n integer, text text, box real[], box_score real, text_score real, across integer[])
LANGUAGE sql STABLE ROWS 5 AS $$
    WITH document AS MATERIALIZED (
        SELECT split_part(d.folded, E'\n\f\n', 1) AS lines, d.folded, d.pieces FROM immich_ai.ocr_document d WHERE d.asset_id = highlight_across.asset_id
    ),
    across AS MATERIALIZED (
        SELECT d.pieces[p] AS line, array_agg(v.number ORDER BY u.number, v.place) AS spans
        FROM document d, unnest(needles) WITH ORDINALITY AS u (needle, number), LATERAL strpos(d.folded, u.needle) AS found,
             generate_series(1, cardinality(d.pieces), 3) AS p, LATERAL (SELECT found - d.pieces[p + 1] AS start) AS o,
             LATERAL (VALUES
                 (1, u.number::integer), (2, greatest(o.start, 0)), (3, least(o.start + length(u.needle), d.pieces[p + 2]))
             ) AS v (place, number)
        WHERE d.pieces <> '{}' AND strpos(d.lines, u.needle) = 0 AND found > 0
          AND o.start < d.pieces[p + 2] AND o.start + length(u.needle) > 0
        GROUP BY 1
    ),
    matched AS MATERIALIZED (
        SELECT l.*, a.spans, l.total <> cardinality(l.folded) AS differs,
               EXISTS (SELECT FROM unnest(needles) AS needle WHERE strpos(l.folded[l.at], needle) > 0) OR a.spans IS NOT NULL AS matches
        FROM (
            SELECT s.*, row_number() OVER (ORDER BY s.n) AS at, count(*) OVER () AS total,
                   (SELECT string_to_array(d.lines, E'\n') FROM document d) AS folded
            FROM immich_ai.source_line s WHERE s.asset_id = highlight_across.asset_id
        ) l LEFT JOIN across a ON a.line = l.at
    )
    SELECT m.n, m.text, ARRAY[m.x1, m.y1, m.x2, m.y2, m.x3, m.y3, m.x4, m.y4], m.box_score, m.text_score,
           CASE WHEN NOT m.differs THEN m.spans END
    FROM matched m
    WHERE m.matches OR m.differs OR m.at <= 400 AND NOT EXISTS (SELECT FROM matched WHERE matches)
    ORDER BY m.n
$$;

-- The same as one value: [[n, text, [x1, ..., y4], box_score, text_score, across], ...].
CREATE FUNCTION immich_ai.highlighted_across(asset_id uuid, needles text[]) RETURNS json
LANGUAGE sql STABLE AS $$
    SELECT json_agg(json_build_array(h.n, h.text, h.box, h.box_score, h.text_score, h.across) ORDER BY h.n)
    FROM immich_ai.highlight_across(asset_id, needles) h
$$;
