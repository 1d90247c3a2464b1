-- Finding: by text, by meaning, by both. Each function can be called from psql: \df+ immich_ai.*
-- Every candidate list holds visible pictures of the asked owner alone, so that nothing has to be taken out of it afterwards.

-- A row with a vector of 512 numbers has 2.1 kB: just enough for PostgreSQL to move the vector out, and comparing would read it back.
ALTER TABLE immich_ai.embedding SET (toast_tuple_target = 8160);

-- A LIKE pattern of the texts that contain `needle`.
CREATE FUNCTION immich_ai.containing(needle text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '%' || replace(replace(replace(needle, '\', '\\'), '%', '\%'), '_', '\_') || '%';

-- How well a folded text answers, 0 to 1. Exact hits have 0.5 and more, others less. Then: all needles are there letter by letter (0.1),
-- as words (0.2), the hit fills its line (0.1), the text is short (0.1).
CREATE FUNCTION immich_ai.text_score(folded text, needle text, exact boolean, letter_by_letter boolean, as_words boolean) RETURNS real
LANGUAGE sql IMMUTABLE PARALLEL SAFE
-- In bytes and float8: counting UTF-8's characters and adding numerics took longer than finding the text.
RETURN (
    CASE WHEN exact THEN
        0.5::float8 + 0.1::float8 * octet_length(needle) / (octet_length(needle)
            + octet_length(split_part(split_part(folded, needle, 1), E'\n', -1))
            + octet_length(split_part(split_part(folded, needle, 2), E'\n', 1)))
    ELSE 0::float8 END
    + CASE WHEN letter_by_letter THEN 0.1::float8 ELSE 0::float8 END
    + CASE WHEN as_words THEN 0.2::float8 ELSE 0::float8 END
    + 0.1::float8 / (1 + octet_length(folded) / 500::float8)
)::real;

-- The texts of one alternative of a query (ocr_search says what that is), at most `most` of them, in no order.
CREATE FUNCTION immich_ai.text_candidates(wanted text[], unwanted text[], wanted_words tsquery, unwanted_words tsquery[], owner text, most integer)
RETURNS TABLE (asset_id uuid, score real, exact boolean)
LANGUAGE plpgsql STABLE ROWS 500
-- The planner has no statistics worth the name on words; both conditions have an index, and a text's picture is one look-up.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_custom_plan
SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
#variable_conflict use_column
DECLARE
    needle text := array_to_string(wanted, ' ');
    several boolean := cardinality(wanted) > 1; -- a single one that is there letter by letter is an exact hit
    patterns text[] := ARRAY(SELECT immich_ai.containing(w) FROM unnest(wanted) AS w);
    unwanted_patterns text[] := ARRAY(SELECT immich_ai.containing(u) FROM unnest(unwanted) AS u WHERE cardinality(immich_ai.grams(u)) > 0);
    grams text[] := ARRAY(SELECT DISTINCT g FROM unnest(wanted) AS w, unnest(immich_ai.grams(w)) AS g);
    -- A needle of one or two letters has no gram, so that the index cannot promise it.
    has_grams boolean := (SELECT bool_and(cardinality(immich_ai.grams(w)) > 0) FROM unnest(wanted) AS w);
BEGIN
    IF has_grams THEN
        RETURN QUERY
            SELECT d.asset_id, immich_ai.text_score(d.folded, needle, h.exact, h.exact OR h.letter_by_letter, h.as_words), h.exact
            FROM immich_ai.ocr_document d
            CROSS JOIN LATERAL (
                -- Behind OFFSET 0: from an owner with few pictures the planner would start at those, and work out the grams of each.
                SELECT FROM immich_ai.source_asset s
                WHERE s.id = d.asset_id AND s.visible AND (text_candidates.owner IS NULL OR s.owner = text_candidates.owner) OFFSET 0
            ) a,
            LATERAL (
                SELECT strpos(d.folded, needle) > 0 AS exact, several AND d.folded LIKE ALL (patterns) AS letter_by_letter,
                       d.words @@ wanted_words AS as_words
                OFFSET 0
            ) h
            WHERE (d.words @@ wanted_words OR immich_ai.grams(d.folded) @> grams)
              AND (h.exact OR h.letter_by_letter OR h.as_words)
              AND NOT (d.folded LIKE ANY (unwanted_patterns)) AND NOT (d.words @@ ANY (unwanted_words))
            LIMIT most;
    ELSE
        RETURN QUERY
            SELECT d.asset_id, immich_ai.text_score(d.folded, needle, h.exact, h.exact OR h.letter_by_letter, true), h.exact
            FROM immich_ai.ocr_document d
            CROSS JOIN LATERAL (
                SELECT FROM immich_ai.source_asset s
                WHERE s.id = d.asset_id AND s.visible AND (text_candidates.owner IS NULL OR s.owner = text_candidates.owner) OFFSET 0
            ) a,
            LATERAL (
                SELECT strpos(d.folded, needle) > 0 AS exact, several AND d.folded LIKE ALL (patterns) AS letter_by_letter OFFSET 0
            ) h
            WHERE d.words @@ wanted_words
              AND NOT (d.folded LIKE ANY (unwanted_patterns)) AND NOT (d.words @@ ANY (unwanted_words))
            LIMIT most;
    END IF;
END
$$;

CREATE FUNCTION immich_ai.ocr_search(alternatives jsonb, owner text DEFAULT NULL, most integer DEFAULT 500)
RETURNS TABLE (asset_id uuid, rank integer, score real, exact boolean)
LANGUAGE sql STABLE ROWS 500 AS $$
    SELECT f.asset_id, (row_number() OVER (ORDER BY max(f.score) DESC, f.asset_id))::integer, max(f.score), bool_or(f.exact)
    FROM jsonb_array_elements(alternatives) AS alternative,
    LATERAL (
        SELECT ARRAY(SELECT jsonb_array_elements_text(alternative -> 'all')) AS wanted,
               ARRAY(SELECT jsonb_array_elements_text(coalesce(alternative -> 'none', '[]'))) AS unwanted
        OFFSET 0
    ) AS needles,
    LATERAL immich_ai.text_candidates(
        wanted, unwanted, immich_ai.query_words(wanted, alternative ->> 'words'),
        ARRAY(
            SELECT immich_ai.query_words(ARRAY[u], alternative -> 'none_words' ->> (n - 1)::integer)
            FROM unnest(unwanted) WITH ORDINALITY AS listed (u, n)
        ),
        owner, 1000
    ) AS f
    GROUP BY f.asset_id
    ORDER BY 2 LIMIT most
$$;
COMMENT ON FUNCTION immich_ai.ocr_search(jsonb, text, integer) IS
$$Pictures by the text in them, best first (rank from 1; score 0 to 1; exact: the whole query stands there letter by letter).
alternatives: [{"all": ["发票", "上海"], "none": ["2023"]}, ...]: a text must have all of "all" and none of "none" of one of them; folded
(lower case, half width, simplified). "words", "none_words": the same cut to words by Python, as tsquery; not needed where zhparser cuts.
owner: whose pictures; null: everybody's. most: how many. Of a word that is in more than 1000 texts of one's own, 1000 are ranked.$$;

CREATE FUNCTION immich_ai.clip_search(query vector, model text, owner text DEFAULT NULL, most integer DEFAULT 200)
RETURNS TABLE (asset_id uuid, rank integer, similarity real)
LANGUAGE plpgsql STABLE ROWS 200
SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
#variable_conflict use_column
DECLARE
    -- Of everybody's pictures, how many are the owner's: of the 500 whose ids come first, as ids are drawn at random.
    share float8 := CASE WHEN owner IS NULL THEN 1 ELSE (
        SELECT greatest(avg((a.owner = clip_search.owner)::integer), 0.02)
        FROM (SELECT s.owner FROM immich_ai.source_asset s ORDER BY s.id LIMIT 500) AS a
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
    IF owner IS NOT NULL THEN
        nearest := nearest || ' AND a.owner = $2';
        -- An index walks through everybody's pictures, most / share of them, and each takes four times as long as one that is looked up
        -- and compared by itself (measured: 17 and 4 microseconds): up to about as much work, all of the owner's are compared.
        few := 5 * most / share;
    END IF;
    IF (SELECT count(*) FROM (SELECT FROM immich_ai.source_asset a WHERE a.owner = clip_search.owner LIMIT few + 1) AS counted) <= few THEN
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
COMMENT ON FUNCTION immich_ai.clip_search(vector, text, text, integer) IS
$$Pictures by meaning, nearest first (rank from 1; similarity: cosine, -1 to 1).
query: a CLIP vector. model: whose vector it is, as in immich_ai.embedding; Immich's own vectors have no name and are taken as they are.
owner: whose pictures; null: everybody's. most: how many, at most 1000 (pgvector's hnsw.ef_search).$$;

CREATE FUNCTION immich_ai.hybrid_search(
    alternatives jsonb, query vector, model text, owner text DEFAULT NULL, fusion text DEFAULT 'rrf',
    clip_weight double precision DEFAULT 1, ocr_weight double precision DEFAULT 1, clip_most integer DEFAULT 60, ocr_most integer DEFAULT 500
)
RETURNS TABLE (
    asset_id uuid, place integer, score double precision,
    ocr_rank integer, ocr_score real, exact boolean, clip_rank integer, similarity real
)
LANGUAGE sql STABLE ROWS 500 AS $$
    WITH
    fused AS (
        SELECT coalesce(o.asset_id, c.asset_id) AS asset_id, o.rank AS ocr_rank, o.score AS ocr_score, coalesce(o.exact, false) AS exact,
               c.rank AS clip_rank, c.similarity,
               CASE fusion
                   WHEN 'weighted' THEN clip_weight * coalesce(c.similarity, 0) + ocr_weight * coalesce(o.score, 0)
                   ELSE clip_weight * coalesce(1.0 / (60 + c.rank), 0) + ocr_weight * coalesce(1.0 / (60 + o.rank), 0)
               END AS score
        FROM immich_ai.ocr_search(alternatives, owner, ocr_most) o
        FULL JOIN immich_ai.clip_search(query, model, owner, clip_most) c ON c.asset_id = o.asset_id
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
COMMENT ON FUNCTION immich_ai.hybrid_search(jsonb, vector, text, text, text, double precision, double precision, integer, integer) IS
$$Pictures by text and by meaning in one order (place from 1), with both lists' ranks and scores.
alternatives, query, model, owner: as for ocr_search and clip_search; a null leaves that list out.
fusion: rrf (each list gives weight / (60 + rank): Cormack, Clarke and Buettcher 2009), or weighted (clip_weight * similarity +
ocr_weight * text score). A picture in which the whole query stands is among the first ten, unless more than ten are such.
clip_most, ocr_most: how long the two lists are. Equal scores: text first; within a list, equal scores are ordered by id.$$;
