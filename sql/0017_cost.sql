-- What a search of texts costs beside the look itself: lines to show by one look at all hits of a page; a tsquery of no words without a notice to
-- whoever asks; no second look that can find nothing more; one alternative without grouping.

-- Words as a tsquery of the texts that have one of them; null where there are none.
CREATE OR REPLACE FUNCTION immich_ai.either(words text[]) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    -- '' would be a tsquery too, and PostgreSQL's notice that it is empty.
    RETURN nullif(array_to_string(ARRAY(SELECT quote_literal(w) FROM unnest(words) AS w), ' | '), '');
END
$$;

-- The texts that have all of one alternative of a query in some way: as text_candidates finds it, or almost. In no order; scores are below 0.2,
-- and below 0.1 where a character differs.
CREATE OR REPLACE FUNCTION immich_ai.near_candidates(
    asked immich_ai.question, owner text, owned uuid[], most integer, timeline_only boolean DEFAULT false
)
RETURNS TABLE (asset_id uuid, score real)
LANGUAGE plpgsql STABLE ROWS 50
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
#variable_conflict use_column
DECLARE
    near jsonb;
    close text[];
    misspelt text[];
    likely text; -- texts that have words, forms, and words that are close
    possible text; -- and misspelt ones
    letters text;
    promised text; -- a condition that an index answers
    almost text; -- one that is checked on each text: a character may differ
    lookups text[] := '{}';
    exact_checks text[] := '{}';
    checks text[] := '{}';
    -- One as a word and another as a part of one is nothing that text_candidates finds. Where grams find all that words do, it has found everything.
    anything boolean := cardinality(asked.wanted) > 1 AND asked.indexed_words IS NOT NULL;
BEGIN
    FOR at IN 1 .. cardinality(asked.wanted) LOOP
        near := CASE WHEN NOT asked.quoted[at] THEN nullif(asked.near -> (at - 1), 'null') END;
        close := immich_ai.close_words(near);
        misspelt := immich_ai.misspelt_words(near);
        anything := anything OR cardinality(close || misspelt) > 0 OR coalesce(near ? 'pieces', false);
        likely := format('d.words @@ %L::tsquery', coalesce(asked.each_words[at] || immich_ai.either(close), asked.each_words[at]));
        possible := CASE WHEN misspelt = '{}' THEN likely
            ELSE format('d.words @@ %L::tsquery', asked.each_words[at] || immich_ai.either(close || misspelt)) END;
        letters := CASE WHEN asked.each_grams[at] IS NULL THEN '' ELSE format(' OR strpos(d.folded, %L) > 0', asked.wanted[at]) END;
        promised := possible || coalesce(format(' OR immich_ai.grams(d.folded) @> %L::text[]', asked.each_grams[at]), '');
        almost := possible || letters;
        IF near ? 'pieces' THEN
            promised := promised || (
                SELECT string_agg(format(' OR immich_ai.grams(d.folded) @> %L::text[]', g.grams), '')
                FROM jsonb_array_elements(near -> 'pieces') AS pieces,
                     LATERAL (
                         SELECT ARRAY(
                             SELECT DISTINCT g FROM jsonb_array_elements_text(pieces) AS piece, unnest(immich_ai.longest_grams(piece)) AS g
                         )
                     ) AS g (grams)
            );
            almost := almost || format(' OR d.folded ~ %L', near ->> 'pattern');
        END IF;
        IF asked.quoted[at] THEN
            almost := format('d.folded ~ %L', immich_ai.exactly(asked.wanted[at]));
        END IF;
        lookups := lookups || format('(%s)', promised);
        exact_checks := exact_checks || format('(%s)', CASE WHEN asked.quoted[at] THEN almost ELSE likely || letters END);
        checks := checks || format('(%s)', almost);
    END LOOP;
    IF NOT anything THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT d.asset_id, (CASE WHEN %1$s THEN 0.1::float8 ELSE 0::float8 END + 0.1::float8 / (1.001 + octet_length(d.folded) / 500::float8))::real
         FROM %2$s
         WHERE %3$s AND %4$s AND NOT immich_ai.has_unwanted(d.folded, d.words, $4, $5, $6)
         LIMIT $3',
        array_to_string(exact_checks, ' AND '),
        CASE WHEN owned IS NULL THEN
            'immich_ai.ocr_document d CROSS JOIN LATERAL (
                 SELECT FROM immich_ai.source_asset s
                 WHERE s.id = d.asset_id AND s.visible AND ($1 IS NULL OR s.owner = $1) AND (s.on_timeline OR NOT $7) OFFSET 0
             ) a'
        ELSE 'unnest($2) AS o (id) JOIN immich_ai.ocr_document d ON d.asset_id = o.id' END,
        -- Each look-up costs a read of an index; a few make the texts few enough.
        CASE WHEN owned IS NULL THEN array_to_string(lookups[1:6], ' AND ') ELSE 'true' END,
        array_to_string(checks, ' AND ')
    ) USING owner, owned, most, asked.unwanted_patterns, asked.unwanted_exactly, asked.unwanted_forms, timeline_only;
END
$$;

CREATE OR REPLACE FUNCTION immich_ai.ocr_search(
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
    owned := coalesce(within, immich_ai.smaller_side(asked, owner, timeline_only));
    IF cardinality(asked) = 1 THEN
        SELECT array_agg(c.asset_id), array_agg(c.score), array_agg(c.exact) INTO ids, scores, exacts
        FROM immich_ai.text_candidates(asked[1], owner, owned, 1000, timeline_only) AS c;
    ELSE
        SELECT array_agg(f.asset_id), array_agg(f.score), array_agg(f.exact) INTO ids, scores, exacts
        FROM (
            SELECT c.asset_id, max(c.score) AS score, bool_or(c.exact) AS exact
            FROM unnest(asked) AS one,
                 LATERAL immich_ai.text_candidates(one, owner, owned, least(1000, 4000 / cardinality(asked)), timeline_only) AS c
            GROUP BY c.asset_id
        ) AS f;
    END IF;
    IF ids IS NULL OR cardinality(ids) < 20 THEN -- else what comes after them is not on the first page
        SELECT array_agg(f.asset_id), array_agg(f.score) INTO near_ids, near_scores
        FROM (
            SELECT c.asset_id, max(c.score) AS score
            FROM unnest(asked) AS one, LATERAL immich_ai.near_candidates(one, owner, owned, 200, timeline_only) AS c
            GROUP BY c.asset_id
        ) AS f
        WHERE ids IS NULL OR NOT f.asset_id = ANY (ids);
        ids := ids || near_ids;
        scores := scores || near_scores;
        exacts := exacts || array_fill(false, ARRAY[coalesce(cardinality(near_ids), 0)]);
    END IF;
    RETURN QUERY
        SELECT f.asset_id, (row_number() OVER (ORDER BY f.score DESC, f.asset_id))::integer, f.score, f.exact
        FROM (SELECT * FROM unnest(ids, scores, exacts) AS u (asset_id, score, exact) ORDER BY u.score DESC, u.asset_id LIMIT most) AS f
        ORDER BY 2;
END
$$;

DROP FUNCTION immich_ai.highlighted(uuid, text[]);
DROP FUNCTION immich_ai.highlight(uuid, text[]);

-- Of pictures, the lines that contain one of `needles` (folded), as one value: [[n, text, [x1, ..., y4], box_score, text_score], ...]; null: none.
-- The document's lines stand in the order of the source's; where their numbers differ (Immich has read anew and search.immich.sync has not seen it
-- yet) all lines come, and search.query.find looks.
CREATE FUNCTION immich_ai.highlighted(ids uuid[], needles text[]) RETURNS TABLE (asset_id uuid, lines json)
LANGUAGE plpgsql STABLE ROWS 20
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan
SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
#variable_conflict use_column
DECLARE
    patterns text[] := ARRAY(SELECT immich_ai.containing(needle) FROM unnest(needles) AS needle);
BEGIN
    RETURN QUERY
        SELECT i.id, (
            SELECT json_agg(
                json_build_array(l.n, l.text, ARRAY[l.x1, l.y1, l.x2, l.y2, l.x3, l.y3, l.x4, l.y4], l.box_score, l.text_score) ORDER BY l.n
            )
            FROM (
                SELECT s.*, row_number() OVER (ORDER BY s.n) AS at, count(*) OVER () AS total
                FROM immich_ai.source_line s WHERE s.asset_id = i.id
            ) l
            WHERE l.total <> cardinality(f.lines) OR f.lines[l.at] LIKE ANY (patterns)
        )
        FROM unnest(ids) AS i (id) JOIN immich_ai.ocr_document d ON d.asset_id = i.id,
             LATERAL (SELECT string_to_array(split_part(d.folded, E'\n\f\n', 1), E'\n') AS lines OFFSET 0) f;
END
$$;
COMMENT ON FUNCTION immich_ai.highlighted(uuid[], text[]) IS
'The lines of pictures that contain one of needles (folded texts), with boxes: x1, y1 to x4, y4, clockwise from the top left, as fractions.';
