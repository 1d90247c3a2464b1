-- What Immich 3.1 has more than tables_2_5.sql, looked up in a running one; what is known of 3.3 is the same. Lines have an "updateId" of
-- their own, which only an insertion sets (there is no trigger for updates). Deleted lines are noted by a trigger, with the rights of whoever
-- deletes; not those that go with their picture (the trigger runs within the foreign key's), nor those of a TRUNCATE.
ALTER TABLE public.asset_ocr ADD COLUMN "updateId" uuid NOT NULL DEFAULT public.immich_uuid_v7();
CREATE INDEX "asset_ocr_updateId_idx" ON public.asset_ocr ("updateId");
CREATE TABLE public.asset_ocr_audit (
    id uuid PRIMARY KEY DEFAULT public.immich_uuid_v7(),
    "assetId" uuid NOT NULL,
    "deletedAt" timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX "asset_ocr_audit_assetId_idx" ON public.asset_ocr_audit ("assetId");
CREATE INDEX "asset_ocr_audit_deletedAt_idx" ON public.asset_ocr_audit ("deletedAt");
CREATE FUNCTION public.asset_ocr_delete_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO asset_ocr_audit ("assetId") SELECT "assetId" FROM OLD;
    RETURN NULL;
END
$$;
CREATE TRIGGER asset_ocr_delete_audit AFTER DELETE ON public.asset_ocr
    REFERENCING OLD TABLE AS old FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION public.asset_ocr_delete_audit();
