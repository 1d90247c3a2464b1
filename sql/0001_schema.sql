-- The tables of search. Everything of ours is in the schema immich_ai, which search.store.migrations has made, and nothing refers to
-- Immich's tables: no foreign key, no trigger, no view (a view on a column of Immich would stop Immich from changing that column).

CREATE TABLE immich_ai.setting (
    name text PRIMARY KEY,
    value text NOT NULL
);
COMMENT ON TABLE immich_ai.setting IS
    'source: standalone, immich or immich-1.134 (immich_ai.use_source). cutter: jieba or zhparser, what cuts text to words here.';

INSERT INTO immich_ai.setting (name, value) VALUES ('source', 'standalone'), ('cutter', 'jieba');

-- Pictures of our own index (the source "standalone"); empty where Immich is the source.
CREATE TABLE immich_ai.asset (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    owner text NOT NULL DEFAULT '',
    uri text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('image', 'video')),
    size bigint NOT NULL CHECK (size >= 0),
    modified timestamptz NOT NULL,
    content_hash bytea NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (owner, uri)
);
COMMENT ON COLUMN immich_ai.asset.uri IS 'Absolute path, or an fsspec URI such as s3://bucket/key.';
COMMENT ON COLUMN immich_ai.asset.size IS 'Bytes.';
-- A file that was moved is known again by what it holds.
CREATE INDEX asset_content ON immich_ai.asset (owner, content_hash);

-- One vector for each picture and model. The column has no fixed size, so that several models fit; each model has an index of its own.
CREATE TABLE immich_ai.embedding (
    asset_id uuid NOT NULL REFERENCES immich_ai.asset ON DELETE CASCADE,
    model text NOT NULL,
    vector vector NOT NULL,
    PRIMARY KEY (asset_id, model)
);
-- A vector of 512 numbers is 2 kB: kept in the row, so that exact distances need no second read, and not compressed (it does not shrink).
ALTER TABLE immich_ai.embedding ALTER COLUMN vector SET STORAGE EXTERNAL;

-- Lines of text of our own index, in reading order from n = 1. Corners clockwise from the top left of the text, as fractions of
-- the picture's width and height.
CREATE TABLE immich_ai.ocr_line (
    asset_id uuid NOT NULL REFERENCES immich_ai.asset ON DELETE CASCADE,
    n integer NOT NULL CHECK (n > 0),
    text text NOT NULL,
    x1 real NOT NULL, y1 real NOT NULL, x2 real NOT NULL, y2 real NOT NULL,
    x3 real NOT NULL, y3 real NOT NULL, x4 real NOT NULL, y4 real NOT NULL,
    box_score real NOT NULL,
    text_score real NOT NULL,
    PRIMARY KEY (asset_id, n)
);

-- The words of one document as the index keeps them. This one is for words that Python cut (search.query.words); where zhparser is
-- installed, 0003_words.sql replaces it. The limit keeps a tsvector below its 1 MB.
CREATE FUNCTION immich_ai.document_words(folded text, cut text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN to_tsvector('pg_catalog.simple'::regconfig, left(cut, 200000));

-- What was read in one picture, of whichever source. A row whose text is '' says: read, and there was no text. No row: not read.
CREATE TABLE immich_ai.ocr_document (
    asset_id uuid PRIMARY KEY,
    text text NOT NULL,
    folded text NOT NULL,
    cut text NOT NULL,
    words tsvector NOT NULL GENERATED ALWAYS AS (immich_ai.document_words(folded, cut)) STORED,
    read_at timestamptz NOT NULL DEFAULT now(),
    model text,
    source_read_at timestamptz,
    source_digest text
);
COMMENT ON COLUMN immich_ai.ocr_document.text IS 'The lines as read, in reading order, one a line.';
COMMENT ON COLUMN immich_ai.ocr_document.folded IS 'text folded by search.query.folding: what is searched for substrings.';
COMMENT ON COLUMN immich_ai.ocr_document.cut IS 'folded cut to words by search.query.words, one blank between; empty where the database cuts.';
COMMENT ON COLUMN immich_ai.ocr_document.model IS 'The OCR model, where it is known: Immich does not keep it.';
COMMENT ON COLUMN immich_ai.ocr_document.source_read_at IS 'Immich''s "ocrAt" when its lines were copied; null in our own index.';
COMMENT ON COLUMN immich_ai.ocr_document.source_digest IS 'md5 of what Immich had then: tells changes that "ocrAt" does not show.';

CREATE INDEX ocr_document_words ON immich_ai.ocr_document USING gin (words);

-- What could not be done, by picture and task. In our own index a picture that was never read has no id yet: its uri names it then.
CREATE TABLE immich_ai.failure (
    subject text NOT NULL GENERATED ALWAYS AS (coalesce(owner || E'\n' || uri, asset_id::text)) STORED,
    task text NOT NULL CHECK (task IN ('read', 'ocr', 'clip', 'faces')),
    asset_id uuid,
    owner text NOT NULL DEFAULT '',
    uri text,
    code text NOT NULL,
    message text NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    failed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (subject, task)
);
COMMENT ON COLUMN immich_ai.failure.subject IS 'What the failure is about: owner and uri where there is a uri, else the asset.';
COMMENT ON COLUMN immich_ai.failure.task IS 'read: the file could not be opened or decoded; otherwise the task that failed.';
COMMENT ON COLUMN immich_ai.failure.code IS 'A code of errors.py.';

-- Make the HNSW index over the vectors of one model, if it is not there; `size` is how many numbers they have (at most 2000).
-- An index of another size under the same name is dropped first. A search uses the index when it compares
-- vector::vector(size) by <=> and names the model as a literal.
CREATE FUNCTION immich_ai.index_embeddings(model text, size integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    -- Names are cut at 63 bytes and models' names are free: the digest keeps them apart.
    prefix text := 'embedding_' || md5(model) || '_';
    stale text;
BEGIN
    IF size NOT BETWEEN 1 AND 2000 THEN
        RAISE EXCEPTION 'an index holds vectors of 1 to 2000 numbers, not of %', size USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR stale IN
        SELECT indexname FROM pg_indexes
        WHERE schemaname = 'immich_ai' AND tablename = 'embedding' AND starts_with(indexname, prefix) AND indexname <> prefix || size
    LOOP
        EXECUTE format('DROP INDEX immich_ai.%I', stale);
    END LOOP;
    EXECUTE format(
        'CREATE INDEX IF NOT EXISTS %I ON immich_ai.embedding USING hnsw ((vector::vector(%s)) vector_cosine_ops) WHERE model = %L',
        prefix || size, size, model
    );
END
$$;
