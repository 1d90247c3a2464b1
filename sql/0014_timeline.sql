-- What is on the timeline, as a column of the source: of partners' pictures Immich shows those alone. Searches by text and by meaning leave out the
-- rest before anything is ranked or counted, so that it takes no place, shortens no list, and keeps nothing else from being found.
--   source_asset(id, owner, name, taken_at, visible, on_timeline)      on_timeline: visible and not archived

CREATE OR REPLACE FUNCTION immich_ai.use_standalone() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    CREATE OR REPLACE VIEW immich_ai.source_asset AS
        SELECT id, owner, regexp_replace(uri, '^.*/', '') AS name, modified AS taken_at, true AS visible, true AS on_timeline FROM immich_ai.asset;
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

-- Pictures and vectors of any Immich, as in 0002. immich_picture takes the place of immich_asset, on which the view stood: a function cannot get
-- another column.
CREATE OR REPLACE FUNCTION immich_ai.use_immich_assets(assets regclass) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format($body$
        CREATE OR REPLACE FUNCTION immich_ai.immich_picture()
        RETURNS TABLE (id uuid, owner text, name text, taken_at timestamptz, visible boolean, on_timeline boolean)
        LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000 AS $sql$
            SELECT a.id, a."ownerId"::text, a."originalFileName"::text, a."localDateTime",
                   a."deletedAt" IS NULL AND a.visibility IN ('timeline', 'archive'), a."deletedAt" IS NULL AND a.visibility = 'timeline'
            FROM public.%I a
        $sql$
    $body$, (SELECT relname FROM pg_class WHERE oid = assets));  -- a regclass would print as the search_path of now wants it
    CREATE OR REPLACE FUNCTION immich_ai.immich_embedding()
    RETURNS TABLE (asset_id uuid, model text, vector vector)
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000 AS $sql$
        SELECT s."assetId", 'immich'::text, s.embedding FROM public.smart_search s
    $sql$;
    CREATE OR REPLACE VIEW immich_ai.source_asset AS
        SELECT id, owner, name, taken_at, visible, on_timeline FROM immich_ai.immich_picture();
    CREATE OR REPLACE VIEW immich_ai.source_embedding AS
        SELECT asset_id, model, vector FROM immich_ai.immich_embedding();
END
$$;

-- Where Immich's tables are not those of before, whoever opens the database says what is to be done.
DO $$
DECLARE
    source text := (SELECT value FROM immich_ai.setting WHERE name = 'source');
BEGIN
    IF source = 'standalone' OR source = immich_ai.detect_source() THEN
        PERFORM immich_ai.use_source(source);
        DROP FUNCTION IF EXISTS immich_ai.immich_asset();
    END IF;
END
$$;

-- Whose pictures are searched, and of whom only what is on the timeline. Both null: everybody's.
CREATE FUNCTION immich_ai.whose(owners text[], partners text[]) RETURNS TABLE (owner text, timeline_only boolean)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 3 AS $$
    SELECT unnest(owners), false
    UNION ALL SELECT unnest(partners), true
    UNION ALL SELECT NULL, false WHERE owners IS NULL AND partners IS NULL
$$;
