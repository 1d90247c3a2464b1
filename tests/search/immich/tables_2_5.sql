-- Immich's tables (2.5), as far as search and re-processing touch them.
CREATE TYPE public.asset_visibility_enum AS ENUM ('archive', 'timeline', 'hidden', 'locked');
CREATE TABLE public.asset (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "ownerId" uuid NOT NULL,
    type character varying NOT NULL DEFAULT 'IMAGE',
    visibility public.asset_visibility_enum NOT NULL DEFAULT 'timeline',
    "deletedAt" timestamptz,
    "originalFileName" character varying NOT NULL,
    "localDateTime" timestamptz NOT NULL,
    "updatedAt" timestamptz NOT NULL DEFAULT now()
);
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
