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

DROP FUNCTION immich_ai.clip_search(vector, text, text, integer);

CREATE FUNCTION immich_ai.clip_search(
    query vector, model text, owner text DEFAULT NULL, most integer DEFAULT 200, timeline_only boolean DEFAULT false
)
RETURNS TABLE (asset_id uuid, rank integer, similarity real)
LANGUAGE plpgsql STABLE ROWS 200
SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
#variable_conflict use_column
DECLARE
    -- Of everybody's pictures, how many are searched: of the 500 whose ids come first, as ids are drawn at random.
    share float8 := CASE WHEN owner IS NULL THEN 1 ELSE (
        SELECT greatest(avg((a.owner = clip_search.owner AND (a.on_timeline OR NOT timeline_only))::integer), 0.02)
        FROM (SELECT s.owner, s.on_timeline FROM immich_ai.source_asset s ORDER BY s.id LIMIT 500) AS a
    ) END;
    few integer;
    standalone boolean := (SELECT s.value = 'standalone' FROM immich_ai.setting s WHERE s.name = 'source');
    -- The expression that the index is on: ours has no size of its own, Immich's column has.
    vector_expression text := CASE WHEN standalone THEN format('e.vector::vector(%s)', vector_dims(query)) ELSE 'e.vector' END;
    nearest text := format(
        'SELECT e.asset_id, %1$s <=> $1 AS distance FROM immich_ai.source_embedding e JOIN immich_ai.source_asset a ON a.id = e.asset_id
         WHERE e.model = %2$L AND a.visible', vector_expression, CASE WHEN standalone THEN model ELSE 'immich' END);
BEGIN
    IF query IS NULL THEN
        RETURN;
    END IF;
    IF timeline_only THEN
        nearest := nearest || ' AND a.on_timeline';
    END IF;
    IF owner IS NOT NULL THEN
        nearest := nearest || ' AND a.owner = $2';
        -- An index walks through everybody's pictures, most / share of them, and each takes four times as long as one that is looked up
        -- and compared by itself (measured: 17 and 4 microseconds): up to about as much work, all of the owner's are compared.
        few := 5 * most / share;
    END IF;
    IF (
        SELECT count(*) FROM (
            SELECT FROM immich_ai.source_asset a WHERE a.owner = clip_search.owner AND (a.on_timeline OR NOT timeline_only) LIMIT few + 1
        ) AS counted
    ) <= few THEN
        nearest := format('SELECT asset_id, distance FROM (%s OFFSET 0) AS everything', nearest);
    ELSE
        -- As many as one pass needs to find enough of the owner's; if it does not, pgvector 0.8 goes on with another.
        PERFORM set_config(
            'hnsw.ef_search', least(1000, greatest(CASE WHEN owner IS NULL THEN most ELSE 1.25 * most / share END, 40))::integer::text, true
        );
        IF (SELECT string_to_array(extversion, '.')::integer[] >= '{0,8}' FROM pg_extension WHERE extname = 'vector') THEN
            PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true); -- they are sorted below
        END IF;
        PERFORM set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true), set_config('enable_seqscan', 'off', true);
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT asset_id, (row_number() OVER (ORDER BY distance, asset_id))::integer, (1 - distance)::real
         FROM (%s ORDER BY distance LIMIT $3) AS found ORDER BY 2', nearest) USING query, owner, most;
END
$$;
COMMENT ON FUNCTION immich_ai.clip_search(vector, text, text, integer, boolean) IS
$$Pictures by meaning, nearest first (rank from 1; similarity: cosine, -1 to 1).
query: a CLIP vector. model: whose vector it is, as in immich_ai.embedding; Immich's own vectors have no name and are taken as they are.
owner: whose pictures; null: everybody's. most: how many, at most 1000 (pgvector's hnsw.ef_search). timeline_only: leave out what is archived.$$;

DROP FUNCTION immich_ai.hybrid_search(jsonb, vector, text, text[], text, double precision, double precision, integer, integer);

CREATE FUNCTION immich_ai.hybrid_search(
    alternatives jsonb, query vector, model text, owners text[] DEFAULT NULL, fusion text DEFAULT 'rrf',
    clip_weight double precision DEFAULT 1, ocr_weight double precision DEFAULT 1, clip_most integer DEFAULT 60, ocr_most integer DEFAULT 500,
    partners text[] DEFAULT NULL
)
RETURNS TABLE (
    asset_id uuid, place integer, score double precision,
    ocr_rank integer, ocr_score real, exact boolean, clip_rank integer, similarity real
)
LANGUAGE sql STABLE ROWS 500 AS $$
    WITH
    who AS (SELECT w.owner, w.timeline_only FROM immich_ai.whose(owners, partners) w),
    texts AS (
        SELECT f.asset_id, (row_number() OVER (ORDER BY f.score DESC, f.asset_id))::integer AS rank, f.score, f.exact
        FROM who, LATERAL immich_ai.ocr_search(alternatives, who.owner, ocr_most, who.timeline_only) f
        ORDER BY 2 LIMIT ocr_most
    ),
    meanings AS (
        SELECT f.asset_id, (row_number() OVER (ORDER BY f.similarity DESC, f.rank, f.asset_id))::integer AS rank, f.similarity
        FROM who, LATERAL immich_ai.clip_search(query, model, who.owner, clip_most, who.timeline_only) f
        ORDER BY 2 LIMIT clip_most
    ),
    fused AS (
        SELECT coalesce(o.asset_id, c.asset_id) AS asset_id, o.rank AS ocr_rank, o.score AS ocr_score, coalesce(o.exact, false) AS exact,
               c.rank AS clip_rank, c.similarity,
               CASE fusion
                   WHEN 'weighted' THEN clip_weight * coalesce(c.similarity, 0) + ocr_weight * coalesce(o.score, 0)
                   ELSE clip_weight * coalesce(1.0 / (60 + c.rank), 0) + ocr_weight * coalesce(1.0 / (60 + o.rank), 0)
               END AS score
        FROM texts o FULL JOIN meanings c ON c.asset_id = o.asset_id
    ),
    counted AS (
        SELECT f.*, count(*) FILTER (WHERE f.exact) OVER () AS exact_hits,
               row_number() OVER (PARTITION BY f.exact ORDER BY f.score DESC, f.ocr_rank, f.clip_rank) AS among_its_kind
        FROM fused f
    )
    -- The first ten hold all exact hits, if there are no more than ten, and the best others.
    SELECT c.asset_id,
           (row_number() OVER (
               ORDER BY c.exact_hits <= 10 AND (c.exact OR c.among_its_kind <= 10 - c.exact_hits) DESC, c.score DESC, c.ocr_rank, c.clip_rank
           ))::integer,
           c.score, c.ocr_rank, c.ocr_score, c.exact, c.clip_rank, c.similarity
    FROM counted c
    ORDER BY 2
$$;
COMMENT ON FUNCTION immich_ai.hybrid_search(jsonb, vector, text, text[], text, double precision, double precision, integer, integer, text[]) IS
$$Pictures by text and by meaning in one order (place from 1), with both lists' ranks and scores.
alternatives, query, model: as for ocr_search and clip_search; a null leaves that list out.
owners: whose pictures; partners: whose pictures on the timeline; both null: everybody's.
fusion: rrf (each list gives weight / (60 + rank): Cormack, Clarke and Buettcher 2009), or weighted (clip_weight * similarity +
ocr_weight * text score). A picture in which the whole query stands is among the first ten, unless more than ten are such.
clip_most, ocr_most: how long the two lists are. Equal scores: text first; within a list, equal scores are ordered by id.$$;
