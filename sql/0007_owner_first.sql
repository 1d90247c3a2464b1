-- A search of one owner's texts starts at the smaller side: at the owner's pictures where these are few, else at the texts that match. Before,
-- it always started at the texts: a common word among 200,000 pictures took a second for an owner of 200 of them. And the more alternatives a
-- query has, the fewer texts of each are ranked: 32 common words took two seconds.
DROP FUNCTION immich_ai.text_candidates(text[], text[], tsquery, tsquery[], text, integer);

-- The texts of one alternative of a query (ocr_search says what that is), at most `most` of them, in no order. `owned`: the visible pictures of
-- `owner` where they are few; null: many, or everybody's.
CREATE FUNCTION immich_ai.text_candidates(
    wanted text[], unwanted text[], wanted_words tsquery, unwanted_words tsquery[], owner text, owned uuid[], most integer
)
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
    IF owned IS NOT NULL THEN
        RETURN QUERY
            SELECT d.asset_id, immich_ai.text_score(d.folded, needle, h.exact, h.exact OR h.letter_by_letter, h.as_words), h.exact
            FROM unnest(owned) AS o (id)
            JOIN immich_ai.ocr_document d ON d.asset_id = o.id
            CROSS JOIN LATERAL (
                -- As below, letters count only where a gram could promise them.
                SELECT strpos(d.folded, needle) > 0 AS exact, several AND d.folded LIKE ALL (patterns) AS letter_by_letter,
                       d.words @@ wanted_words AS as_words
                OFFSET 0
            ) h
            WHERE (h.as_words OR has_grams AND (h.exact OR h.letter_by_letter))
              AND NOT (d.folded LIKE ANY (unwanted_patterns)) AND NOT (d.words @@ ANY (unwanted_words))
            LIMIT most;
    ELSIF has_grams THEN
        RETURN QUERY
            SELECT d.asset_id, immich_ai.text_score(d.folded, needle, h.exact, h.exact OR h.letter_by_letter, h.as_words), h.exact
            FROM immich_ai.ocr_document d
            CROSS JOIN LATERAL (
                -- Behind OFFSET 0, or the planner would start at the pictures and work out the grams of each.
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

CREATE OR REPLACE FUNCTION immich_ai.ocr_search(alternatives jsonb, owner text DEFAULT NULL, most integer DEFAULT 500)
RETURNS TABLE (asset_id uuid, rank integer, score real, exact boolean)
LANGUAGE sql STABLE ROWS 500 AS $$
    WITH owned AS MATERIALIZED (
        -- Comparing a text that is looked up takes some ten microseconds: 5000 cost no more than the texts of a common word do.
        SELECT CASE WHEN cardinality(o.ids) <= 5000 THEN o.ids END AS ids
        FROM (
            SELECT CASE WHEN ocr_search.owner IS NOT NULL THEN ARRAY(
                SELECT s.id FROM immich_ai.source_asset s WHERE s.owner = ocr_search.owner AND s.visible LIMIT 5001
            ) END AS ids
        ) AS o
    )
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
        owner, (SELECT ids FROM owned), least(1000, 4000 / jsonb_array_length(alternatives))
    ) AS f
    GROUP BY f.asset_id
    ORDER BY 2 LIMIT most
$$;
COMMENT ON FUNCTION immich_ai.ocr_search(jsonb, text, integer) IS
$$Pictures by the text in them, best first (rank from 1; score 0 to 1; exact: the whole query stands there letter by letter).
alternatives: [{"all": ["发票", "上海"], "none": ["2023"]}, ...]: a text must have all of "all" and none of "none" of one of them; folded
(lower case, half width, simplified). "words", "none_words": the same cut to words by Python, as tsquery; not needed where zhparser cuts.
owner: whose pictures; null: everybody's. most: how many. Of a word that is in more than 1000 texts of one's own, 1000 are ranked; of each of
more than four alternatives, 4000 divided by their number.$$;
