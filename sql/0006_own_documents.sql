-- Documents of our own index stay when the source is Immich, so that a switch to Immich and back loses nothing. Documents that Immich no
-- longer stands behind go as before: the pictures that it has deleted or will read anew ("ocrAt" null), and the failures of those gone.
CREATE OR REPLACE FUNCTION immich_ai.drop_deleted() RETURNS bigint
LANGUAGE sql AS $$
    DELETE FROM immich_ai.failure f
    WHERE f.uri IS NULL AND NOT EXISTS (SELECT FROM immich_ai.source_asset a WHERE a.id = f.asset_id);
    WITH dropped AS (
        DELETE FROM immich_ai.ocr_document d
        WHERE NOT EXISTS (SELECT FROM immich_ai.source_read s WHERE s.asset_id = d.asset_id)
          AND NOT EXISTS (SELECT FROM immich_ai.asset a WHERE a.id = d.asset_id)
        RETURNING 1
    )
    SELECT count(*) FROM dropped
$$;

-- Earlier versions made the extension zhparser in our schema, so that a dump without that schema did not restore.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'zhparser' AND extnamespace = 'immich_ai'::regnamespace) THEN
        ALTER EXTENSION zhparser SET SCHEMA public;
    END IF;
EXCEPTION WHEN insufficient_privilege OR feature_not_supported THEN
    RAISE WARNING 'the extension zhparser is in the schema immich_ai: a superuser moves it by ALTER EXTENSION zhparser SET SCHEMA public';
END
$$;
