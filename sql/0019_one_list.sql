-- A search of one list alone does not prepare the other: clip_search looks at 500 pictures of an owner before it sees that there is no vector.

CREATE OR REPLACE FUNCTION immich_ai.hybrid_search(
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
        WHERE alternatives IS NOT NULL
        ORDER BY 2 LIMIT ocr_most
    ),
    meanings AS (
        SELECT f.asset_id, (row_number() OVER (ORDER BY f.similarity DESC, f.rank, f.asset_id))::integer AS rank, f.similarity
        FROM who, LATERAL immich_ai.clip_search(query, model, who.owner, clip_most, who.timeline_only) f
        WHERE query IS NOT NULL
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
