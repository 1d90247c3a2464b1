-- A search of what somebody can see, for those who must not learn of the rest: of a partner's pictures those on the timeline alone, or given ones
-- alone. What is left out counts nowhere: neither in the ranks nor for whether almost right texts are looked for.

-- Those of `ids` that stand on their owner's timeline: not archived, not locked. All of them for our own index, which has no other.
CREATE FUNCTION immich_ai.on_timeline(ids uuid[]) RETURNS uuid[]
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF (SELECT value FROM immich_ai.setting WHERE name = 'source') = 'standalone' THEN
        RETURN ids;
    ELSIF to_regclass('public.asset') IS NOT NULL THEN
        RETURN ARRAY(SELECT a.id FROM public.asset a WHERE a.id = ANY (ids) AND a.visibility = 'timeline');
    END IF;
    RETURN ARRAY(SELECT a.id FROM public.assets a WHERE a.id = ANY (ids) AND a.visibility = 'timeline'); -- up to 1.136
END
$$;

DROP FUNCTION immich_ai.ocr_search(jsonb, text, integer);

CREATE FUNCTION immich_ai.ocr_search(
    alternatives jsonb, owner text DEFAULT NULL, most integer DEFAULT 500, timeline_only boolean DEFAULT false, within uuid[] DEFAULT NULL
)
RETURNS TABLE (asset_id uuid, rank integer, score real, exact boolean)
LANGUAGE plpgsql STABLE ROWS 500 SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    asked immich_ai.question[];
    owned uuid[];
    ids uuid[];
    scores real[];
    exacts boolean[];
    near_ids uuid[];
    near_scores real[];
BEGIN
    IF alternatives IS NULL THEN
        RETURN;
    END IF;
    asked := ARRAY(SELECT immich_ai.asked(alternative) FROM jsonb_array_elements(alternatives) AS alternative);
    owned := coalesce(within, immich_ai.smaller_side(asked, owner));
    SELECT array_agg(f.asset_id), array_agg(f.score), array_agg(f.exact) INTO ids, scores, exacts
    FROM (
        SELECT c.asset_id, max(c.score) AS score, bool_or(c.exact) AS exact
        FROM unnest(asked) AS one, LATERAL immich_ai.text_candidates(one, owner, owned, least(1000, 4000 / cardinality(asked))) AS c
        GROUP BY c.asset_id
    ) AS f;
    IF timeline_only THEN
        SELECT array_agg(f.asset_id), array_agg(f.score), array_agg(f.exact) INTO ids, scores, exacts
        FROM unnest(ids, scores, exacts) AS f (asset_id, score, exact) JOIN unnest(immich_ai.on_timeline(ids)) AS seen (id) ON seen.id = f.asset_id;
    END IF;
    IF ids IS NULL OR cardinality(ids) < 20 THEN -- else what comes after them is not on the first page
        SELECT array_agg(f.asset_id), array_agg(f.score) INTO near_ids, near_scores
        FROM (
            SELECT c.asset_id, max(c.score) AS score
            FROM unnest(asked) AS one, LATERAL immich_ai.near_candidates(one, owner, owned, 200) AS c
            GROUP BY c.asset_id
        ) AS f
        WHERE ids IS NULL OR NOT f.asset_id = ANY (ids);
        IF timeline_only THEN
            SELECT array_agg(f.asset_id), array_agg(f.score) INTO near_ids, near_scores
            FROM unnest(near_ids, near_scores) AS f (asset_id, score) JOIN unnest(immich_ai.on_timeline(near_ids)) AS seen (id) ON seen.id = f.asset_id;
        END IF;
        ids := ids || near_ids;
        scores := scores || near_scores;
        exacts := exacts || array_fill(false, ARRAY[coalesce(cardinality(near_ids), 0)]);
    END IF;
    RETURN QUERY
        SELECT f.asset_id, (row_number() OVER (ORDER BY f.score DESC, f.asset_id))::integer, f.score, f.exact
        FROM unnest(ids, scores, exacts) AS f (asset_id, score, exact) ORDER BY 2 LIMIT most;
END
$$;
COMMENT ON FUNCTION immich_ai.ocr_search(jsonb, text, integer, boolean, uuid[]) IS
$$Pictures by the text in them, best first (rank from 1; score 0 to 1; exact: the whole query stands there letter by letter, or as the same number).
alternatives: [{"all": ["发票", "上海"], "none": ["2023"]}, ...]: a text must have all of "all" and none of "none" of one of them; folded
(lower case, half width, simplified). Beside each of "all", by search.query.alternatives: "quoted" (it must stand by itself, as written), "words"
(cut by Python, as tsquery; not needed where zhparser cuts), "forms" (numbers and dates, as tsquery), "same" (those that have the very number),
"near" (what may differ); "none_forms".
owner: whose pictures; null: everybody's. most: how many. Of a word that is in more than 1000 texts of one's own, 1000 are ranked; of each of
more than four alternatives, 4000 divided by their number. What is almost right is looked for where fewer than 20 texts have it.
timeline_only: leave out what is archived. within: search these pictures, whoever's and however visible they are, instead of those of owner.$$;
