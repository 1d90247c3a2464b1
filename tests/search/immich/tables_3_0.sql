-- What Immich 3.0 changed in tables_2_5.sql: deleted lines are noted by a trigger, with the rights of whoever deletes.
CREATE FUNCTION public.immich_uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE AS 'SELECT gen_random_uuid()';
ALTER TABLE public.asset_ocr ADD COLUMN "updateId" uuid NOT NULL DEFAULT public.immich_uuid_v7();
CREATE TABLE public.asset_ocr_audit (
    id uuid PRIMARY KEY DEFAULT public.immich_uuid_v7(),
    "assetId" uuid NOT NULL,
    "deletedAt" timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE FUNCTION public.asset_ocr_delete_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO asset_ocr_audit ("assetId") SELECT "assetId" FROM OLD;
    RETURN NULL;
END
$$;
CREATE TRIGGER asset_ocr_delete_audit AFTER DELETE ON public.asset_ocr
    REFERENCING OLD TABLE AS old FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION public.asset_ocr_delete_audit();
CREATE TABLE public.system_metadata (key character varying PRIMARY KEY, value jsonb NOT NULL);
