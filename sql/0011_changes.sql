-- What Immich has changed since a time, for search.immich.sync: an edit hides lines of text and leaves "ocrAt" as it is.
-- Immich marks each change of an asset by a new "updateId", a UUID of version 7, thus by the time; the job that hides the lines of an edited
-- picture changes the asset after that. Immich 3 marks lines that it writes in the same way (not those that it hides), and notes in
-- asset_ocr_audit of which pictures lines are gone. A mark is made before its transaction is committed: ask for some time more than has passed.
-- Pictures without any line are left out: "OCR: All" empties the table first, and texts are to be found until they are read anew.
CREATE FUNCTION immich_ai.changed_assets(since timestamptz) RETURNS SETOF uuid
LANGUAGE plpgsql STABLE ROWS 100 AS $$
DECLARE
    first uuid := (lpad(to_hex((extract(epoch FROM since) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
    marks text[] := ARRAY[]::text[];
BEGIN
    IF since IS NULL OR NOT EXISTS (SELECT FROM immich_ai.setting WHERE name = 'source' AND value = 'immich') THEN
        RETURN;
    END IF;
    -- Asked of the catalog each time: Immich may be upgraded while this runs.
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('public.asset') AND attname = 'updateId' AND NOT attisdropped) THEN
        marks := marks || 'SELECT id FROM public.asset WHERE "updateId" >= $1'::text;
    END IF;
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('public.asset_ocr') AND attname = 'updateId' AND NOT attisdropped) THEN
        marks := marks || 'SELECT "assetId" FROM public.asset_ocr WHERE "updateId" >= $1'::text;
    END IF;
    IF has_table_privilege(to_regclass('public.asset_ocr_audit'), 'SELECT') THEN
        marks := marks || 'SELECT "assetId" FROM public.asset_ocr_audit WHERE id >= $1'::text;
    END IF;
    IF cardinality(marks) > 0 THEN
        RETURN QUERY EXECUTE format(
            'SELECT c.id FROM (%s) AS c (id) WHERE EXISTS (SELECT FROM public.asset_ocr o WHERE o."assetId" = c.id)',
            array_to_string(marks, ' UNION ')
        ) USING first;
    END IF;
END
$$;

DROP FUNCTION immich_ai.stale_documents(uuid, integer, boolean);

-- For search.immich.sync: the next pictures, by id, whose document is missing or older than what Immich read; with `since`, also those of what
-- Immich changed since then whose lines are others; with `thorough`, all whose lines are others (the fork of 1.134 has no "ocrAt").
CREATE FUNCTION immich_ai.stale_documents(after uuid, batch integer, thorough boolean, since timestamptz DEFAULT NULL)
RETURNS TABLE (asset_id uuid, read_at timestamptz, digest text, lines text[], boxes real[], known boolean)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    changed uuid[];
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
        changed := ARRAY(
            SELECT d.asset_id
            FROM immich_ai.changed_assets(since) AS c (id)
            JOIN immich_ai.ocr_document d ON d.asset_id = c.id
            WHERE d.asset_id > after
              AND d.source_digest IS DISTINCT FROM
                  coalesce((SELECT g.digest FROM immich_ai.source_digest g WHERE g.asset_id = c.id), md5(''))
        );
        RETURN QUERY
        SELECT n.asset_id, n.read_at, n.digest, n.lines, n.boxes, s.known
        FROM (
            SELECT r.asset_id, d.asset_id IS NOT NULL AS known
            FROM immich_ai.source_read r
            LEFT JOIN immich_ai.ocr_document d ON d.asset_id = r.asset_id
            WHERE r.asset_id > after
              AND (d.asset_id IS NULL OR d.source_read_at IS DISTINCT FROM r.read_at OR r.asset_id = ANY (changed))
            ORDER BY r.asset_id LIMIT batch
        ) s JOIN immich_ai.source_document n ON n.asset_id = s.asset_id ORDER BY n.asset_id;
    END IF;
END
$$;
