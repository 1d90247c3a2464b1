-- Immich's tables (2.5), as far as search and re-processing touch them.
CREATE FUNCTION public.immich_uuid_v7(p_timestamp timestamptz DEFAULT clock_timestamp()) RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM p_timestamp) * 1000)::bigint), 12, '0') || '7' || substr(md5(random()::text), 1, 3)
            || '8' || substr(md5(random()::text), 1, 15))::uuid
$$;
CREATE FUNCTION public.updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW."updatedAt" = clock_timestamp();
    NEW."updateId" = immich_uuid_v7(clock_timestamp());
    RETURN NEW;
END
$$;
CREATE TYPE public.asset_visibility_enum AS ENUM ('archive', 'timeline', 'hidden', 'locked');
CREATE TABLE public.asset (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "ownerId" uuid NOT NULL,
    type character varying NOT NULL DEFAULT 'IMAGE',
    visibility public.asset_visibility_enum NOT NULL DEFAULT 'timeline',
    "deletedAt" timestamptz,
    "originalFileName" character varying NOT NULL,
    "localDateTime" timestamptz NOT NULL,
    "isEdited" boolean NOT NULL DEFAULT false,
    "updatedAt" timestamptz NOT NULL DEFAULT now(),
    "updateId" uuid NOT NULL DEFAULT public.immich_uuid_v7()
);
CREATE INDEX "asset_updateId_idx" ON public.asset ("updateId");
CREATE TRIGGER "asset_updatedAt" BEFORE UPDATE ON public.asset FOR EACH ROW EXECUTE FUNCTION public.updated_at();
CREATE TABLE public.smart_search (
    "assetId" uuid PRIMARY KEY REFERENCES public.asset ON DELETE CASCADE ON UPDATE CASCADE,
    embedding vector(512) NOT NULL
);
ALTER TABLE public.smart_search ALTER COLUMN embedding SET STORAGE EXTERNAL;
CREATE INDEX clip_index ON public.smart_search USING hnsw (embedding vector_cosine_ops) WITH (ef_construction = 300, m = 16);
CREATE TABLE public.asset_ocr (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "assetId" uuid NOT NULL REFERENCES public.asset ON DELETE CASCADE ON UPDATE CASCADE,
    x1 real NOT NULL, y1 real NOT NULL, x2 real NOT NULL, y2 real NOT NULL,
    x3 real NOT NULL, y3 real NOT NULL, x4 real NOT NULL, y4 real NOT NULL,
    "boxScore" real NOT NULL,
    "textScore" real NOT NULL,
    text text NOT NULL,
    "isVisible" boolean NOT NULL DEFAULT true
);
CREATE INDEX "asset_ocr_assetId_idx" ON public.asset_ocr ("assetId");
CREATE TABLE public.ocr_search (
    "assetId" uuid PRIMARY KEY REFERENCES public.asset ON DELETE CASCADE ON UPDATE CASCADE,
    text text NOT NULL
);
CREATE TABLE public.asset_face (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "assetId" uuid NOT NULL REFERENCES public.asset ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE TABLE public.face_search (
    "faceId" uuid PRIMARY KEY REFERENCES public.asset_face ON DELETE CASCADE,
    embedding vector(512) NOT NULL
);
CREATE TABLE public.asset_job_status (
    "assetId" uuid PRIMARY KEY REFERENCES public.asset ON DELETE CASCADE ON UPDATE CASCADE,
    "facesRecognizedAt" timestamptz,
    "metadataExtractedAt" timestamptz,
    "duplicatesDetectedAt" timestamptz,
    "ocrAt" timestamptz
);
CREATE TABLE public.system_metadata (key character varying PRIMARY KEY, value jsonb NOT NULL);
