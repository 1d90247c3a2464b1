-- The tables of the fork of Immich 1.134 that knew OCR, as far as search touches them: its table of pictures is "assets" still.
CREATE TYPE public.asset_visibility_enum AS ENUM ('archive', 'timeline', 'hidden', 'locked');
CREATE TABLE public.assets (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "ownerId" uuid NOT NULL,
    visibility public.asset_visibility_enum NOT NULL DEFAULT 'timeline',
    "deletedAt" timestamptz,
    "originalFileName" character varying NOT NULL,
    "localDateTime" timestamptz NOT NULL
);
CREATE TABLE public.smart_search (
    "assetId" uuid PRIMARY KEY REFERENCES public.assets ON DELETE CASCADE ON UPDATE CASCADE,
    embedding vector(512) NOT NULL
);
CREATE INDEX clip_index ON public.smart_search USING hnsw (embedding vector_cosine_ops);
CREATE TABLE public.ocr_info (
    "assetId" uuid PRIMARY KEY REFERENCES public.assets ON DELETE CASCADE ON UPDATE CASCADE,
    text text NOT NULL,
    "ocrJson" jsonb
);
CREATE TABLE public.asset_job_status (
    "assetId" uuid PRIMARY KEY REFERENCES public.assets ON DELETE CASCADE ON UPDATE CASCADE,
    "facesRecognizedAt" timestamptz
);
