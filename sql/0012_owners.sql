-- A search of several people's pictures: a user of Immich sees those of partners in one timeline with their own.
DROP FUNCTION immich_ai.hybrid_search(jsonb, vector, text, text, text, double precision, double precision, integer, integer);

CREATE FUNCTION immich_ai.hybrid_search(
    alternatives jsonb, query vector, model text, owners text[] DEFAULT NULL, fusion text DEFAULT 'rrf',
    clip_weight double precision DEFAULT 1, ocr_weight double precision DEFAULT 1, clip_most integer DEFAULT 60, ocr_most integer DEFAULT 500
)
RETURNS TABLE (
    asset_id uuid, place integer, score double precision,
    ocr_rank integer, ocr_score real, exact boolean, clip_rank integer, similarity real
)
LANGUAGE sql STABLE ROWS 500 AS $$
    WITH
    who AS (SELECT unnest(coalesce(owners, ARRAY[NULL::text])) AS owner),
    texts AS (
        SELECT f.asset_id, (row_number() OVER (ORDER BY f.score DESC, f.asset_id))::integer AS rank, f.score, f.exact
        FROM who, LATERAL immich_ai.ocr_search(alternatives, who.owner, ocr_most) f
        ORDER BY 2 LIMIT ocr_most
    ),
    meanings AS (
        SELECT f.asset_id, (row_number() OVER (ORDER BY f.similarity DESC, f.rank, f.asset_id))::integer AS rank, f.similarity
        FROM who, LATERAL immich_ai.clip_search(query, model, who.owner, clip_most) f
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
COMMENT ON FUNCTION immich_ai.hybrid_search(jsonb, vector, text, text[], text, double precision, double precision, integer, integer) IS
$$Pictures by text and by meaning in one order (place from 1), with both lists' ranks and scores.
alternatives, query, model: as for ocr_search and clip_search; a null leaves that list out. owners: whose pictures; null: everybody's.
fusion: rrf (each list gives weight / (60 + rank): Cormack, Clarke and Buettcher 2009), or weighted (clip_weight * similarity +
ocr_weight * text score). A picture in which the whole query stands is among the first ten, unless more than ten are such.
clip_most, ocr_most: how long the two lists are. Equal scores: text first; within a list, equal scores are ordered by id.$$;
