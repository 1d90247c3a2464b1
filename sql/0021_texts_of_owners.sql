-- Texts of an owner who has a small part of the library: those that match are the common part of two indexes, of words and of owners, before any of them is
-- read. Else each text that matches is read to see whose it is (of a million pictures, "debug" of an owner of 4 %: 334 ms, now 14).
-- Uses immich_ai.owner_of of 0020.
CREATE INDEX ocr_document_owner ON immich_ai.ocr_document (immich_ai.owner_of(asset_id));

-- Whose a picture is, without reading its row: 309 ms became 111 where 33,000 texts are looked at for an owner of 70 % of a million pictures.
CREATE UNIQUE INDEX asset_whose ON immich_ai.asset (id) INCLUDE (owner);
-- Whoever asks for some of an owner's pictures must not walk through it, which the planner takes for cheap where it expects many.
ALTER FUNCTION immich_ai.owned(text, integer, boolean) SET enable_indexonlyscan = off;

-- Whether `owner` has less than an eighth of our own index, by the pictures whose ids come first, as ids are drawn at random. Of a larger part, most of the
-- texts that match are needed anyway.
CREATE FUNCTION immich_ai.has_small_part(owner text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT has_small_part.owner IS NOT NULL AND (SELECT s.value = 'standalone' FROM immich_ai.setting s WHERE s.name = 'source')
       AND (SELECT count(*) FILTER (WHERE s.owner = has_small_part.owner) < 8 FROM (SELECT a.owner FROM immich_ai.asset a ORDER BY a.id LIMIT 64) AS s)
$$;

-- Pictures of `owner` whose texts the indexes promise to match, 4000 at most; null where he has more than a small part of the library.
CREATE FUNCTION immich_ai.matching_of_owner(asked immich_ai.question[], owner text) RETURNS uuid[]
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan SET max_parallel_workers_per_gather = 0 AS $$
BEGIN
    IF NOT immich_ai.has_small_part(owner) THEN
        RETURN NULL;
    END IF;
    RETURN ARRAY(
        SELECT DISTINCT d.asset_id FROM unnest(asked) AS a, LATERAL (
            SELECT d.asset_id FROM immich_ai.ocr_document d
            WHERE (d.words @@ a.indexed_words OR immich_ai.grams(d.folded) @> a.indexed_grams)
              AND immich_ai.owner_of(d.asset_id) = matching_of_owner.owner
            LIMIT 4000 / cardinality(asked)
        ) AS d
    );
END
$$;

-- As before, but that texts of such an owner come by the index of owners.
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
        CASE WHEN owned IS NULL AND immich_ai.has_small_part(owner) THEN
            '(SELECT d.asset_id, d.folded, d.words FROM immich_ai.ocr_document d WHERE immich_ai.owner_of(d.asset_id) = $1) AS d'
        WHEN owned IS NULL THEN
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

-- As before, but for matching_of_owner, and that near ones of few pictures are looked for in these alone.
CREATE OR REPLACE FUNCTION immich_ai.ocr_search(
    alternatives jsonb, owner text DEFAULT NULL, most integer DEFAULT 500, timeline_only boolean DEFAULT false, within uuid[] DEFAULT NULL
)
RETURNS TABLE (asset_id uuid, rank integer, score real, exact boolean)
LANGUAGE plpgsql STABLE ROWS 500 SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    asked immich_ai.question[];
    owned uuid[];
    matching uuid[];
    few constant integer := 2500;
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
    matching := coalesce(owned, immich_ai.matching_of_owner(asked, owner));
    IF cardinality(asked) = 1 THEN
        SELECT array_agg(c.asset_id), array_agg(c.score), array_agg(c.exact) INTO ids, scores, exacts
        FROM immich_ai.text_candidates(asked[1], owner, matching, 1000, timeline_only) AS c;
    ELSE
        SELECT array_agg(f.asset_id), array_agg(f.score), array_agg(f.exact) INTO ids, scores, exacts
        FROM (
            SELECT c.asset_id, max(c.score) AS score, bool_or(c.exact) AS exact
            FROM unnest(asked) AS one,
                 LATERAL immich_ai.text_candidates(one, owner, matching, least(1000, 4000 / cardinality(asked)), timeline_only) AS c
            GROUP BY c.asset_id
        ) AS f;
    END IF;
    IF ids IS NULL OR cardinality(ids) < 20 THEN -- else what comes after them is not on the first page
        IF owned IS NULL AND owner IS NOT NULL THEN
            -- A rare word is in few texts, but what comes near it may be in many: of an owner with fewer pictures, these are looked at.
            owned := immich_ai.owned(owner, few + 1, timeline_only);
            IF cardinality(owned) > few THEN
                owned := NULL;
            END IF;
        END IF;
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
