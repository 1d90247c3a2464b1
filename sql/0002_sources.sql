-- Whose pictures are searched. Views hide it; immich_ai.use_source makes them anew:
--   source_asset(id, owner, name, taken_at, visible)      every picture; visible: not in the trash, not hidden, not locked
--   source_embedding(asset_id, model, vector)             CLIP vectors; Immich's have one model, whose name it keeps elsewhere: 'immich'
--   source_line(asset_id, n, text, x1 .. y4, box_score, text_score)    lines in reading order from n = 1, corners as fractions
--   source_read(asset_id, read_at)                        pictures that Immich has read, and when (null: it does not keep that)
--   source_digest(asset_id, digest)                       md5 of what it read; no row: nothing was there
-- The last two are for search.immich.sync and empty in our own index.
--
-- Over Immich's tables they read through SQL functions, which the planner puts in line (so Immich's indexes are used) and of
-- whose bodies PostgreSQL keeps no dependencies. Views straight on the tables would be dependencies: Immich's own
-- ALTER TABLE smart_search ALTER COLUMN embedding, when its CLIP model changes, would fail, and so would its migrations.
-- https://www.postgresql.org/docs/current/ddl-depend.html, https://wiki.postgresql.org/wiki/Inlining_of_SQL_functions

CREATE FUNCTION immich_ai.use_standalone() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    CREATE OR REPLACE VIEW immich_ai.source_asset AS
        SELECT id, owner, regexp_replace(uri, '^.*/', '') AS name, modified AS taken_at, true AS visible FROM immich_ai.asset;
    CREATE OR REPLACE VIEW immich_ai.source_embedding AS
        SELECT asset_id, model, vector FROM immich_ai.embedding;
    CREATE OR REPLACE VIEW immich_ai.source_line AS
        SELECT asset_id, n, text, x1, y1, x2, y2, x3, y3, x4, y4, box_score, text_score FROM immich_ai.ocr_line;
    CREATE OR REPLACE VIEW immich_ai.source_read AS
        SELECT NULL::uuid AS asset_id, NULL::timestamptz AS read_at WHERE false;
    CREATE OR REPLACE VIEW immich_ai.source_digest AS
        SELECT NULL::uuid AS asset_id, NULL::text AS digest WHERE false;
END
$$;

-- Pictures and vectors of any Immich. `assets`: its table of pictures, which was called "assets" up to 1.136.
CREATE FUNCTION immich_ai.use_immich_assets(assets regclass) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format($body$
        CREATE OR REPLACE FUNCTION immich_ai.immich_asset()
        RETURNS TABLE (id uuid, owner text, name text, taken_at timestamptz, visible boolean)
        LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000 AS $sql$
            SELECT a.id, a."ownerId"::text, a."originalFileName"::text, a."localDateTime",
                   a."deletedAt" IS NULL AND a.visibility IN ('timeline', 'archive')
            FROM public.%I a
        $sql$
    $body$, (SELECT relname FROM pg_class WHERE oid = assets));  -- a regclass would print as the search_path of now wants it
    CREATE OR REPLACE FUNCTION immich_ai.immich_embedding()
    RETURNS TABLE (asset_id uuid, model text, vector vector)
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000 AS $sql$
        SELECT s."assetId", 'immich'::text, s.embedding FROM public.smart_search s
    $sql$;
    CREATE OR REPLACE VIEW immich_ai.source_asset AS
        SELECT id, owner, name, taken_at, visible FROM immich_ai.immich_asset();
    CREATE OR REPLACE VIEW immich_ai.source_embedding AS
        SELECT asset_id, model, vector FROM immich_ai.immich_embedding();
END
$$;

-- Immich 2.2 and later. Its lines have no number: they are ordered as they are read. A row of text ends where the next centre is more
-- than half a line lower; within a row, from left to right. "isVisible" came with 2.5.
CREATE FUNCTION immich_ai.use_immich() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    shown text := 'true';
BEGIN
    PERFORM immich_ai.use_immich_assets('public.asset');
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'public.asset_ocr'::regclass AND attname = 'isVisible' AND NOT attisdropped) THEN
        shown := 'o."isVisible"';
    END IF;
    EXECUTE format($body$
        CREATE OR REPLACE FUNCTION immich_ai.immich_line()
        RETURNS TABLE (asset_id uuid, n integer, text text, x1 real, y1 real, x2 real, y2 real, x3 real, y3 real, x4 real, y4 real,
                       box_score real, text_score real)
        LANGUAGE sql STABLE PARALLEL SAFE ROWS 500000 AS $sql$
            SELECT r."assetId", (row_number() OVER (PARTITION BY r."assetId" ORDER BY r.line_row, r.x1, r.id))::integer, r.text,
                   r.x1, r.y1, r.x2, r.y2, r.x3, r.y3, r.x4, r.y4, r."boxScore", r."textScore"
            FROM (
                SELECT c.*, count(*) FILTER (WHERE c.starts_row) OVER (PARTITION BY c."assetId" ORDER BY c.centre, c.x1, c.id) AS line_row
                FROM (
                    SELECT o.*, h.centre,
                           h.centre - lag(h.centre) OVER (PARTITION BY o."assetId" ORDER BY h.centre, o.x1, o.id) > h.height / 2 AS starts_row
                    FROM public.asset_ocr o,
                         LATERAL (SELECT (o.y1 + o.y2 + o.y3 + o.y4) / 4 AS centre, (o.y4 - o.y1 + o.y3 - o.y2) / 2 AS height) h
                    WHERE %1$s
                ) c
            ) r
        $sql$;
        CREATE OR REPLACE FUNCTION immich_ai.immich_read() RETURNS TABLE (asset_id uuid, read_at timestamptz)
        LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000 AS $sql$
            SELECT s."assetId", s."ocrAt" FROM public.asset_job_status s WHERE s."ocrAt" IS NOT NULL
        $sql$;
        CREATE OR REPLACE FUNCTION immich_ai.immich_digest() RETURNS TABLE (asset_id uuid, digest text)
        LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000 AS $sql$
            SELECT o."assetId", md5(string_agg(o.text || ' ' || o.x1 || ' ' || o.y1, E'\n' ORDER BY o.text, o.y1, o.x1))
            FROM public.asset_ocr o WHERE %1$s GROUP BY o."assetId"
        $sql$
    $body$, shown);
    CREATE OR REPLACE VIEW immich_ai.source_line AS
        SELECT asset_id, n, text, x1, y1, x2, y2, x3, y3, x4, y4, box_score, text_score FROM immich_ai.immich_line();
    CREATE OR REPLACE VIEW immich_ai.source_read AS SELECT asset_id, read_at FROM immich_ai.immich_read();
    CREATE OR REPLACE VIEW immich_ai.source_digest AS SELECT asset_id, digest FROM immich_ai.immich_digest();
END
$$;

-- The fork of Immich 1.134: one row for each picture it read, "ocrJson" as {"texts": [...], "scores": ["0.98", ...], "boxes": [...]} with boxes
-- in pixels of a preview whose size is not kept, so corners are null here. Without "texts" the whole text is one line.
CREATE FUNCTION immich_ai.use_immich_1_134() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM immich_ai.use_immich_assets(coalesce(to_regclass('public.assets'), to_regclass('public.asset')));
    CREATE OR REPLACE FUNCTION immich_ai.immich_line()
    RETURNS TABLE (asset_id uuid, n integer, text text, x1 real, y1 real, x2 real, y2 real, x3 real, y3 real, x4 real, y4 real,
                   box_score real, text_score real)
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 500000 AS $sql$
        SELECT i."assetId", l.n::integer, l.text, NULL::real, NULL::real, NULL::real, NULL::real, NULL::real, NULL::real,
               NULL::real, NULL::real, NULL::real,
               CASE WHEN jsonb_path_exists(i."ocrJson" -> 'scores' -> (l.n - 1)::integer, '$.double()', '{}', true)
                    THEN (i."ocrJson" -> 'scores' ->> (l.n - 1)::integer)::real END
        FROM public.ocr_info i,
             LATERAL jsonb_array_elements_text(
                 CASE WHEN jsonb_typeof(i."ocrJson" -> 'texts') = 'array' THEN i."ocrJson" -> 'texts'
                      WHEN i.text <> '' THEN jsonb_build_array(i.text)
                      ELSE '[]'::jsonb END
             ) WITH ORDINALITY AS l (text, n)
    $sql$;
    CREATE OR REPLACE FUNCTION immich_ai.immich_read() RETURNS TABLE (asset_id uuid, read_at timestamptz)
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000 AS $sql$
        SELECT i."assetId", NULL::timestamptz FROM public.ocr_info i
    $sql$;
    CREATE OR REPLACE FUNCTION immich_ai.immich_digest() RETURNS TABLE (asset_id uuid, digest text)
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000 AS $sql$
        SELECT i."assetId", md5(coalesce(i.text, '') || coalesce(i."ocrJson"::text, '')) FROM public.ocr_info i
    $sql$;
    CREATE OR REPLACE VIEW immich_ai.source_line AS
        SELECT asset_id, n, text, x1, y1, x2, y2, x3, y3, x4, y4, box_score, text_score FROM immich_ai.immich_line();
    CREATE OR REPLACE VIEW immich_ai.source_read AS SELECT asset_id, read_at FROM immich_ai.immich_read();
    CREATE OR REPLACE VIEW immich_ai.source_digest AS SELECT asset_id, digest FROM immich_ai.immich_digest();
END
$$;

-- What the tables beside ours are: immich, immich-1.134, or standalone where there are none that we know.
CREATE FUNCTION immich_ai.detect_source() RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN to_regclass('public.smart_search') IS NULL THEN 'standalone'
        WHEN to_regclass('public.asset') IS NOT NULL AND to_regclass('public.asset_ocr') IS NOT NULL THEN 'immich'
        WHEN to_regclass('public.ocr_info') IS NOT NULL AND coalesce(to_regclass('public.assets'), to_regclass('public.asset')) IS NOT NULL
            THEN 'immich-1.134'
        ELSE 'standalone'
    END
$$;

-- Point the views at a source and remember it.
CREATE FUNCTION immich_ai.use_source(source text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    CASE source
        WHEN 'standalone' THEN PERFORM immich_ai.use_standalone();
        WHEN 'immich' THEN PERFORM immich_ai.use_immich();
        WHEN 'immich-1.134' THEN PERFORM immich_ai.use_immich_1_134();
        ELSE RAISE EXCEPTION 'no source is called %', source USING ERRCODE = 'invalid_parameter_value';
    END CASE;
    INSERT INTO immich_ai.setting (name, value) VALUES ('source', source)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value;
END
$$;

DO $$ BEGIN PERFORM immich_ai.use_source('standalone'); END $$;

-- What Immich read in each picture: when, the digest, and the lines in reading order (null: there were none).
CREATE VIEW immich_ai.source_document AS
    SELECT s.asset_id, s.read_at,
           coalesce((SELECT g.digest FROM immich_ai.source_digest g WHERE g.asset_id = s.asset_id), md5('')) AS digest,
           (SELECT array_agg(l.text ORDER BY l.n) FROM immich_ai.source_line l WHERE l.asset_id = s.asset_id) AS lines
    FROM immich_ai.source_read s;

-- For search.immich.sync: the next pictures, by id, whose document is missing or older than what Immich read; with `thorough`, also those whose
-- lines are others than then (an edit in Immich hides lines and leaves "ocrAt" as it is; the fork of 1.134 has no "ocrAt").
CREATE FUNCTION immich_ai.stale_documents(after uuid, batch integer, thorough boolean)
RETURNS TABLE (asset_id uuid, read_at timestamptz, digest text, lines text[], known boolean)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF thorough THEN
        RETURN QUERY
        SELECT n.asset_id, n.read_at, n.digest, n.lines, s.known
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
        SELECT n.asset_id, n.read_at, n.digest, n.lines, s.known
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

-- Drop the documents of pictures that Immich has deleted or will read anew ("ocrAt" null), and the failures of those that are gone.
CREATE FUNCTION immich_ai.drop_deleted() RETURNS bigint
LANGUAGE sql AS $$
    DELETE FROM immich_ai.failure f
    WHERE f.uri IS NULL AND NOT EXISTS (SELECT FROM immich_ai.source_asset a WHERE a.id = f.asset_id);
    WITH dropped AS (
        DELETE FROM immich_ai.ocr_document d
        WHERE NOT EXISTS (SELECT FROM immich_ai.source_read s WHERE s.asset_id = d.asset_id)
        RETURNING 1
    )
    SELECT count(*) FROM dropped
$$;

-- For search.stats: how many visible pictures there are and what has become of each.
CREATE FUNCTION immich_ai.count_documents(OUT assets bigint, OUT read bigint, OUT empty bigint, OUT failed bigint, OUT waiting bigint)
LANGUAGE sql STABLE AS $$
    SELECT count(*),
           count(*) FILTER (WHERE d.text <> ''),
           count(*) FILTER (WHERE d.text = ''),
           count(*) FILTER (WHERE f.failed),
           count(*) FILTER (WHERE d.asset_id IS NULL AND f.failed IS NOT TRUE)
    FROM immich_ai.source_asset a
    LEFT JOIN immich_ai.ocr_document d ON d.asset_id = a.id
    LEFT JOIN (SELECT DISTINCT asset_id, true AS failed FROM immich_ai.failure WHERE task IN ('read', 'ocr')) f ON f.asset_id = a.id
    WHERE a.visible
$$;
