-- The index over vectors has them in half precision (pgvector 0.7 or newer): half the size, and less to compare at each step. What it finds is
-- put in order by the vectors themselves, so that similarities are as exact as before. An index that is there is made anew; no row is changed.

-- The name of that index. Names are cut at 63 bytes and models' names are free: the digest keeps them apart.
CREATE FUNCTION immich_ai.half_index(model text, size integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'embedding_half_' || md5(model) || '_' || size;

-- Make the HNSW index over the vectors of one model, if it is not there; `size` is how many numbers they have (at most 2000).
-- Other indexes over that model are dropped: of another size, or in full precision.
-- A search uses the index when it compares vector::halfvec(size) by <=> and names the model as a literal.
CREATE OR REPLACE FUNCTION immich_ai.index_embeddings(model text, size integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    halves boolean := to_regtype('halfvec') IS NOT NULL;
    full_prefix text := 'embedding_' || md5(model) || '_';
    half_prefix text := 'embedding_half_' || md5(model) || '_';
    name text := CASE WHEN halves THEN immich_ai.half_index(model, size) ELSE full_prefix || size END;
    make text := format(
        -- A graph of a million is searched in vain too often when it was built by pgvector's default of 64.
        'CREATE INDEX %I ON immich_ai.embedding USING hnsw ((vector::%s(%s)) %s) WITH (ef_construction = 128) WHERE model = %L',
        name, CASE WHEN halves THEN 'halfvec' ELSE 'vector' END, size,
        CASE WHEN halves THEN 'halfvec_cosine_ops' ELSE 'vector_cosine_ops' END, model
    );
    -- The graph that is built takes less than the table. What does not fit into memory is inserted one by one, which takes many times as long.
    needed bigint := pg_table_size('immich_ai.embedding') / 1024;
    stale text;
BEGIN
    IF size NOT BETWEEN 1 AND 2000 THEN
        RAISE EXCEPTION 'an index holds vectors of 1 to 2000 numbers, not of %', size USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF to_regclass(format('immich_ai.%I', name)) IS NULL THEN
        PERFORM set_config('maintenance_work_mem', greatest(
            (SELECT s.setting::bigint FROM pg_settings s WHERE s.name = 'maintenance_work_mem'), least(needed, 2097152)
        )::text, true);
        BEGIN
            EXECUTE make;
        EXCEPTION WHEN disk_full OR out_of_memory THEN -- processes that build together share /dev/shm, of which a container has 64 MB
            PERFORM set_config('max_parallel_maintenance_workers', '0', true);
            EXECUTE make;
        END;
    END IF;
    -- The new one is there before: until the end of this transaction others search by the old one.
    FOR stale IN
        SELECT indexname FROM pg_indexes
        WHERE schemaname = 'immich_ai' AND tablename = 'embedding' AND indexname <> name
          AND (starts_with(indexname, full_prefix) OR starts_with(indexname, half_prefix))
    LOOP
        EXECUTE format('DROP INDEX immich_ai.%I', stale);
    END LOOP;
END
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
    size integer := vector_dims(query);
    -- How many an index is asked for at least: the larger the library, the more of what is near is missed by fewer.
    thorough float8 := CASE WHEN standalone THEN (
        SELECT least(400, 40 + greatest(c.reltuples, 0) / 1500) FROM pg_class c WHERE c.oid = 'immich_ai.embedding'::regclass
    ) ELSE 40 END;
    halves boolean := standalone AND to_regclass('immich_ai.' || quote_ident(immich_ai.half_index(model, size))) IS NOT NULL;
    -- The expressions that the indexes are on: ours has no size of its own, Immich's column has.
    exact text := CASE WHEN standalone THEN format('vector::vector(%s) <=> $1', size) ELSE 'vector <=> $1' END;
    indexed text := CASE WHEN halves THEN format('vector::halfvec(%1$s) <=> $1::halfvec(%1$s)', size) ELSE exact END;
    nearest text := format(
        'SELECT e.asset_id, e.vector FROM immich_ai.source_embedding e JOIN immich_ai.source_asset a ON a.id = e.asset_id
         WHERE e.model = %L AND a.visible', CASE WHEN standalone THEN model ELSE 'immich' END);
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
        nearest := nearest || ' OFFSET 0';
    ELSE
        -- As many as one pass needs to find enough of the owner's; if it does not, pgvector 0.8 goes on with another.
        PERFORM set_config(
            'hnsw.ef_search', least(1000, greatest(CASE WHEN owner IS NULL THEN most ELSE 1.25 * most / share END, thorough))::integer::text, true
        );
        IF (SELECT string_to_array(extversion, '.')::integer[] >= '{0,8}' FROM pg_extension WHERE extname = 'vector') THEN
            PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true); -- they are sorted below
        END IF;
        PERFORM set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true), set_config('enable_seqscan', 'off', true);
        nearest := format('%s ORDER BY e.%s LIMIT $3', nearest, indexed);
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT asset_id, (row_number() OVER (ORDER BY distance, asset_id))::integer, (1 - distance)::real
         FROM (SELECT asset_id, %s AS distance FROM (%s) AS candidates ORDER BY distance LIMIT $3) AS found ORDER BY 2', exact, nearest)
    USING query, owner, most;
END
$$;
COMMENT ON FUNCTION immich_ai.clip_search(vector, text, text, integer, boolean) IS
$$Pictures by meaning, nearest first (rank from 1; similarity: cosine, -1 to 1).
query: a CLIP vector. model: whose vector it is, as in immich_ai.embedding; Immich's own vectors have no name and are taken as they are.
owner: whose pictures; null: everybody's. most: how many, at most 1000 (pgvector's hnsw.ef_search). timeline_only: leave out what is archived.$$;

DO $$
DECLARE
    models text[];
    sizes integer[];
BEGIN
    SELECT array_agg(e.model), array_agg(e.size) INTO models, sizes
    FROM (SELECT DISTINCT model, vector_dims(vector) AS size FROM immich_ai.embedding) AS e
    WHERE EXISTS (SELECT FROM pg_indexes i WHERE i.schemaname = 'immich_ai' AND i.indexname = 'embedding_' || md5(e.model) || '_' || e.size);
    FOR at IN 1 .. coalesce(cardinality(models), 0) LOOP
        PERFORM immich_ai.index_embeddings(models[at], sizes[at]);
    END LOOP;
END
$$;
