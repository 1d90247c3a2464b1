-- An index of vectors for each owner of some thousand pictures who has a small part of the library. Neither of the two other ways is good for them: to
-- compare all of theirs with the query, or to walk through everybody's pictures until enough of theirs were met. (Of a million, an owner of 4 % took
-- 180 ms of CPU a search, and now takes 9.) All of these indexes together are no larger than the one over everybody's.

-- The owner of a picture of our own index. It never changes, and so may stand in the condition of an index.
CREATE FUNCTION immich_ai.owner_of(asset uuid) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT a.owner FROM immich_ai.asset a WHERE a.id = asset';

-- The name of an owner's index. Names are cut at 63 bytes: half of the digest keeps owners apart.
CREATE FUNCTION immich_ai.owners_index(model text, size integer, owner text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'embedding_of_' || left(md5(model), 16) || '_' || size || '_' || left(md5(owner), 16);

-- Make the indexes of those owners who need one and have none, the largest first, over the vectors of one model, and drop those of whom has become so
-- few or so many that he needs none. `at_least`: pictures from which on an owner needs one. Where the vectors have no index in half precision, nobody gets one.
CREATE FUNCTION immich_ai.index_owners(model text, at_least integer DEFAULT 5000) RETURNS void
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    most_indexes constant integer := 20; -- each is asked of every picture that is added
    prefix constant text := 'embedding_of_' || left(md5(model), 16) || '_';
    size integer := (SELECT vector_dims(e.vector) FROM immich_ai.embedding e WHERE e.model = index_owners.model LIMIT 1);
    library bigint := (SELECT count(*) FROM immich_ai.asset);
    kept text[] := '{}';
    one record;
    stale text;
BEGIN
    IF NOT pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = 'immich_ai.embedding'::regclass), 'USAGE') THEN
        RETURN; -- whoever may only write rows cannot make indexes
    END IF;
    IF size IS NULL OR to_regclass('immich_ai.' || quote_ident(immich_ai.half_index(model, size))) IS NULL THEN
        size := NULL; -- those of a size of before are dropped
    END IF;
    FOR one IN
        SELECT c.owner, c.pictures, immich_ai.owners_index(model, size, c.owner) AS name
        FROM (SELECT a.owner, count(*) AS pictures FROM immich_ai.asset a GROUP BY a.owner) AS c
        WHERE size IS NOT NULL AND c.pictures >= at_least / 2.0 AND c.pictures <= library * 0.4
        ORDER BY c.pictures DESC
        LIMIT most_indexes
    LOOP
        IF to_regclass('immich_ai.' || quote_ident(one.name)) IS NULL THEN
            CONTINUE WHEN one.pictures < at_least OR one.pictures > library * 0.3; -- who is near a limit does not get and lose one in turns
            PERFORM set_config('maintenance_work_mem', greatest(
                (SELECT s.setting::bigint FROM pg_settings s WHERE s.name = 'maintenance_work_mem'),
                least(one.pictures * (4 * size + 1000) / 1024, 2097152)
            )::text, true);
            PERFORM set_config('max_parallel_maintenance_workers', '0', true); -- those build in /dev/shm, of which a container has 64 MB
            EXECUTE format(
                'CREATE INDEX %I ON immich_ai.embedding USING hnsw ((vector::halfvec(%s)) halfvec_cosine_ops) WITH (ef_construction = 128)
                 WHERE model = %L AND immich_ai.owner_of(asset_id) = %L', one.name, size, model, one.owner);
        END IF;
        kept := kept || one.name;
    END LOOP;
    FOR stale IN
        SELECT i.indexname FROM pg_indexes i
        WHERE i.schemaname = 'immich_ai' AND i.tablename = 'embedding' AND starts_with(i.indexname, prefix) AND NOT i.indexname = ANY (kept)
    LOOP
        EXECUTE format('DROP INDEX immich_ai.%I', stale);
    END LOOP;
END
$$;

-- As before, but an owner's own index is asked where there is one.
CREATE OR REPLACE FUNCTION immich_ai.clip_search(
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
    -- An index of the owner's alone, where there is one.
    own regclass := CASE WHEN standalone AND owner IS NOT NULL THEN
        to_regclass('immich_ai.' || quote_ident(immich_ai.owners_index(model, size, owner)))
    END;
    -- How many an index is asked for at least: the more pictures are in it, the more of what is near is missed by fewer.
    thorough float8 := CASE WHEN standalone THEN (
        SELECT least(400, 40 + greatest(c.reltuples, 0) / 1500) FROM pg_class c WHERE c.oid = coalesce(own, 'immich_ai.embedding'::regclass)
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
        nearest := nearest || ' AND a.owner = $2' || CASE WHEN own IS NOT NULL THEN format(' AND immich_ai.owner_of(e.asset_id) = %L', owner) ELSE '' END;
        -- An index walks through everybody's pictures, most / share of them, and each takes four times as long as one that is looked up
        -- and compared by itself (measured: 17 and 4 microseconds): up to about as much work, all of the owner's are compared.
        few := 5 * most / share;
    END IF;
    IF own IS NULL AND (
        SELECT count(*) FROM (
            SELECT FROM immich_ai.source_asset a WHERE a.owner = clip_search.owner AND (a.on_timeline OR NOT timeline_only) LIMIT few + 1
        ) AS counted
    ) <= few THEN
        nearest := nearest || ' OFFSET 0';
    ELSE
        -- As many as one pass needs to find enough of the owner's; if it does not, pgvector 0.8 goes on with another.
        PERFORM set_config(
            'hnsw.ef_search', least(1000, greatest(CASE WHEN owner IS NULL OR own IS NOT NULL THEN most ELSE 1.25 * most / share END, thorough))::integer::text, true
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
