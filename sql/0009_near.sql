-- Exact phrases and exclusions, numbers and dates by their forms, and, where little is found, what was typed almost right.

DROP FUNCTION immich_ai.text_candidates(text[], text[], tsquery, tsquery[], text, uuid[], integer);

-- A regular expression of the texts in which `needle` stands by itself: a letter or digit at its end has none beside it. Chinese, Japanese,
-- Korean and Thai set no blanks between words, so that it may stand anywhere there.
CREATE FUNCTION immich_ai.exactly(needle text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN needle ~ '^[a-z0-9\u00aa-\u024f\u0370-\u0dff\u10a0-\u10ff]' THEN '(?<![a-z0-9\u00aa-\u024f\u0370-\u0dff\u10a0-\u10ff])' ELSE '' END
    || regexp_replace(needle, '([!-/:-@\[-`{-~])', '\\\1', 'g')
    || CASE WHEN needle ~ '[a-z0-9\u00aa-\u024f\u0370-\u0dff\u10a0-\u10ff]$' THEN '(?![a-z0-9\u00aa-\u024f\u0370-\u0dff\u10a0-\u10ff])' ELSE '' END;

-- What one alternative of a query asks for, as text_candidates and near_candidates look it up. ocr_search says what the JSON is.
CREATE FUNCTION immich_ai.asked(
    alternative jsonb, OUT wanted text[], OUT quoted boolean[], OUT words tsquery[], OUT forms tsquery[], OUT same tsquery[],
    OUT unwanted text[], OUT unwanted_exactly text[], OUT unwanted_forms tsquery
)
LANGUAGE sql STABLE AS $$
    SELECT ARRAY(SELECT jsonb_array_elements_text(alternative -> 'all')),
           ARRAY(SELECT coalesce((alternative -> 'quoted' ->> (n - 1)::integer)::boolean, false)
                 FROM jsonb_array_elements_text(alternative -> 'all') WITH ORDINALITY AS t (w, n) ORDER BY n),
           ARRAY(SELECT immich_ai.query_words(ARRAY[w], alternative -> 'words' ->> (n - 1)::integer)
                 FROM jsonb_array_elements_text(alternative -> 'all') WITH ORDINALITY AS t (w, n) ORDER BY n),
           ARRAY(SELECT (alternative -> 'forms' ->> (n - 1)::integer)::tsquery
                 FROM jsonb_array_elements_text(alternative -> 'all') WITH ORDINALITY AS t (w, n) ORDER BY n),
           ARRAY(SELECT (alternative -> 'same' ->> (n - 1)::integer)::tsquery
                 FROM jsonb_array_elements_text(alternative -> 'all') WITH ORDINALITY AS t (w, n) ORDER BY n),
           ARRAY(SELECT jsonb_array_elements_text(coalesce(alternative -> 'none', '[]'))),
           ARRAY(SELECT immich_ai.exactly(u) FROM jsonb_array_elements_text(coalesce(alternative -> 'none', '[]')) AS u),
           (SELECT string_agg(f, ' | ') FROM jsonb_array_elements_text(coalesce(alternative -> 'none_forms', '[]')) AS f)::tsquery
$$;

-- The texts of one alternative of a query, at most `most` of them, in no order. `owned`: the visible pictures of `owner` where they are few;
-- null: many, or everybody's.
CREATE FUNCTION immich_ai.text_candidates(alternative jsonb, owner text, owned uuid[], most integer)
RETURNS TABLE (asset_id uuid, score real, exact boolean)
LANGUAGE plpgsql STABLE ROWS 500
-- The planner has no statistics worth the name on words; both conditions have an index, and a text's picture is one look-up.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_custom_plan
SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
#variable_conflict use_column
DECLARE
    asked record := immich_ai.asked(alternative);
    needle text := array_to_string(asked.wanted, ' ');
    several boolean := cardinality(asked.wanted) > 1; -- a single one that is there letter by letter is an exact hit
    patterns text[] := ARRAY(SELECT immich_ai.containing(w) FROM unnest(asked.wanted) AS w);
    phrases text[] := ARRAY(SELECT immich_ai.exactly(w) FROM unnest(asked.wanted, asked.quoted) AS t (w, q) WHERE q);
    unwanted_patterns text[] := ARRAY(SELECT immich_ai.containing(u) FROM unnest(asked.unwanted) AS u);
    unwanted_exactly text[] := asked.unwanted_exactly;
    unwanted_forms tsquery := coalesce(asked.unwanted_forms, '');
    grams text[] := ARRAY(SELECT DISTINCT g FROM unnest(asked.wanted) AS w, unnest(immich_ai.grams(w)) AS g);
    -- A needle of one or two letters has no gram, so that the index cannot promise it.
    has_grams boolean := (SELECT bool_and(cardinality(immich_ai.grams(w)) > 0) FROM unnest(asked.wanted) AS w);
    wanted_words tsquery := asked.words[1] || coalesce(asked.forms[1], '');
    same tsquery := asked.same[1]; -- null: not all of it are numbers or dates
BEGIN
    FOR at IN 2 .. cardinality(asked.wanted) LOOP
        wanted_words := wanted_words && (asked.words[at] || coalesce(asked.forms[at], ''));
        same := same && asked.same[at];
    END LOOP;
    same := coalesce(same, '');
    IF owned IS NOT NULL THEN
        RETURN QUERY
            SELECT d.asset_id, immich_ai.text_score(d.folded, needle, h.exact, h.exact OR h.letter_by_letter, h.as_words), h.exact
            FROM unnest(owned) AS o (id)
            JOIN immich_ai.ocr_document d ON d.asset_id = o.id
            CROSS JOIN LATERAL (
                -- As below, letters count only where a gram could promise them.
                SELECT strpos(d.folded, needle) > 0 OR d.words @@ same AS exact, several AND d.folded LIKE ALL (patterns) AS letter_by_letter,
                       d.words @@ wanted_words AS as_words
                OFFSET 0
            ) h
            WHERE (h.as_words OR has_grams AND (h.exact OR h.letter_by_letter)) AND d.folded ~ ALL (phrases)
              AND NOT (d.folded LIKE ANY (unwanted_patterns) AND d.folded ~ ANY (unwanted_exactly)) AND NOT d.words @@ unwanted_forms
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
                SELECT strpos(d.folded, needle) > 0 OR d.words @@ same AS exact, several AND d.folded LIKE ALL (patterns) AS letter_by_letter,
                       d.words @@ wanted_words AS as_words
                OFFSET 0
            ) h
            WHERE (d.words @@ wanted_words OR immich_ai.grams(d.folded) @> grams)
              AND (h.exact OR h.letter_by_letter OR h.as_words) AND d.folded ~ ALL (phrases)
              AND NOT (d.folded LIKE ANY (unwanted_patterns) AND d.folded ~ ANY (unwanted_exactly)) AND NOT d.words @@ unwanted_forms
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
                SELECT strpos(d.folded, needle) > 0 OR d.words @@ same AS exact, several AND d.folded LIKE ALL (patterns) AS letter_by_letter
                OFFSET 0
            ) h
            WHERE d.words @@ wanted_words AND d.folded ~ ALL (phrases)
              AND NOT (d.folded LIKE ANY (unwanted_patterns) AND d.folded ~ ANY (unwanted_exactly)) AND NOT d.words @@ unwanted_forms
            LIMIT most;
    END IF;
END
$$;

-- Words of texts that are forms of a typed word (English) or sound like it (Chinese, typed in Pinyin). near: {"word": "invoices", ...}.
CREATE FUNCTION immich_ai.close_words(near jsonb) RETURNS text[]
LANGUAGE sql STABLE AS $$
    SELECT ARRAY(
        (SELECT w.word FROM immich_ai.word w
         WHERE ts_lexize('pg_catalog.english_stem'::regdictionary, w.word::text) = ts_lexize('pg_catalog.english_stem'::regdictionary, near ->> 'word')
           AND w.sounds = '{}' AND ts_lexize('pg_catalog.english_stem'::regdictionary, near ->> 'word') <> '{}' LIMIT 50)
        UNION
        (SELECT w.word FROM immich_ai.word w WHERE length(near ->> 'word') >= 4 AND w.sounds @> ARRAY[replace(near ->> 'word', 'v', 'u')] LIMIT 50)
    )
$$;

-- Words of texts that differ from a typed one by a letter. near: {"first": its first half, "last": its second, "patterns": LIKE patterns}.
-- Whatever differs by a letter has one of the halves.
CREATE FUNCTION immich_ai.misspelt_words(near jsonb) RETURNS text[]
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off AS $$
DECLARE
    first text COLLATE "C" := near ->> 'first';
    last text COLLATE "C" := reverse(near ->> 'last');
    patterns text[] := ARRAY(SELECT jsonb_array_elements_text(near -> 'patterns'));
BEGIN
    IF first IS NULL THEN
        RETURN '{}';
    END IF;
    RETURN ARRAY(
        SELECT w.word FROM immich_ai.word w
        WHERE w.word >= first AND w.word < first || chr(1114111) AND w.sounds = '{}' AND w.word LIKE ANY (patterns)
        UNION
        SELECT w.word FROM immich_ai.word w
        WHERE reverse(w.word) >= last AND reverse(w.word) < last || chr(1114111) AND w.sounds = '{}' AND w.word LIKE ANY (patterns)
        LIMIT 50
    );
END
$$;

-- The texts that have all of one alternative of a query in some way: as text_candidates finds it, or almost. In no order; scores are below 0.2,
-- and below 0.1 where a character differs.
CREATE FUNCTION immich_ai.near_candidates(alternative jsonb, owner text, owned uuid[], most integer)
RETURNS TABLE (asset_id uuid, score real)
LANGUAGE plpgsql STABLE ROWS 50
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
#variable_conflict use_column
DECLARE
    asked record := immich_ai.asked(alternative);
    near jsonb;
    close text[];
    misspelt text[];
    likely tsquery; -- words, forms, and words that are close
    possible tsquery; -- and misspelt ones
    has_grams boolean;
    promised text; -- a condition that an index answers
    true_to text; -- one that is checked on each text: no character differs
    almost text; -- one may
    lookups text[] := '{}';
    exact_checks text[] := '{}';
    checks text[] := '{}';
    anything boolean := cardinality(asked.wanted) > 1; -- one as a word and another as a part of one is nothing that text_candidates finds
BEGIN
    IF NOT anything AND coalesce(jsonb_typeof(alternative -> 'near' -> 0), 'null') <> 'object' THEN
        RETURN;
    END IF;
    FOR at IN 1 .. cardinality(asked.wanted) LOOP
        near := CASE WHEN NOT asked.quoted[at] AND jsonb_typeof(alternative -> 'near' -> (at - 1)) = 'object' THEN alternative -> 'near' -> (at - 1) END;
        close := coalesce(immich_ai.close_words(near), '{}');
        misspelt := coalesce(immich_ai.misspelt_words(near), '{}');
        likely := asked.words[at] || coalesce(asked.forms[at], '')
            || coalesce((SELECT string_agg(quote_literal(w), ' | ') FROM unnest(close) AS w), '')::tsquery;
        possible := likely || coalesce((SELECT string_agg(quote_literal(w), ' | ') FROM unnest(misspelt) AS w), '')::tsquery;
        has_grams := cardinality(immich_ai.grams(asked.wanted[at])) > 0;
        anything := anything OR cardinality(close || misspelt) > 0 OR coalesce(near ? 'pieces', false);
        promised := format('d.words @@ %L::tsquery', possible);
        true_to := format('d.words @@ %L::tsquery', likely);
        almost := promised;
        IF has_grams THEN
            promised := promised || format(' OR immich_ai.grams(d.folded) @> %L::text[]', immich_ai.grams(asked.wanted[at]));
            true_to := true_to || format(' OR strpos(d.folded, %L) > 0', asked.wanted[at]);
            almost := almost || format(' OR strpos(d.folded, %L) > 0', asked.wanted[at]);
        END IF;
        IF near ? 'pieces' THEN
            promised := promised || (
                SELECT string_agg(format(' OR immich_ai.grams(d.folded) @> %L::text[]', g.grams), '')
                FROM jsonb_array_elements(near -> 'pieces') AS pieces,
                     LATERAL (SELECT ARRAY(SELECT DISTINCT g FROM jsonb_array_elements_text(pieces) AS piece, unnest(immich_ai.grams(piece)) AS g)) AS g (grams)
            );
            almost := almost || format(' OR d.folded ~ %L', near ->> 'pattern');
        END IF;
        IF asked.quoted[at] THEN
            true_to := format('d.folded ~ %L', immich_ai.exactly(asked.wanted[at]));
            almost := true_to;
        END IF;
        lookups := lookups || ('(' || promised || ')');
        exact_checks := exact_checks || ('(' || true_to || ')');
        checks := checks || ('(' || almost || ')');
    END LOOP;
    IF NOT anything THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT d.asset_id, (CASE WHEN %1$s THEN 0.1::float8 ELSE 0::float8 END + 0.1::float8 / (1.001 + octet_length(d.folded) / 500::float8))::real
         FROM %2$s
         WHERE %3$s AND %4$s AND NOT (d.folded LIKE ANY ($4) AND d.folded ~ ANY ($5)) AND NOT d.words @@ $6
         LIMIT $3',
        array_to_string(exact_checks, ' AND '),
        CASE WHEN owned IS NULL THEN
            'immich_ai.ocr_document d CROSS JOIN LATERAL (
                 SELECT FROM immich_ai.source_asset s WHERE s.id = d.asset_id AND s.visible AND ($1 IS NULL OR s.owner = $1) OFFSET 0
             ) a'
        ELSE 'unnest($2) AS o (id) JOIN immich_ai.ocr_document d ON d.asset_id = o.id' END,
        -- Each look-up costs a read of an index; a few make the texts few enough.
        CASE WHEN owned IS NULL THEN array_to_string(lookups[1:6], ' AND ') ELSE 'true' END,
        array_to_string(checks, ' AND ')
    ) USING owner, owned, most, ARRAY(SELECT immich_ai.containing(u) FROM unnest(asked.unwanted) AS u), asked.unwanted_exactly,
        coalesce(asked.unwanted_forms, '');
END
$$;

CREATE OR REPLACE FUNCTION immich_ai.ocr_search(alternatives jsonb, owner text DEFAULT NULL, most integer DEFAULT 500)
RETURNS TABLE (asset_id uuid, rank integer, score real, exact boolean)
LANGUAGE plpgsql STABLE ROWS 500 AS $$
#variable_conflict use_column
DECLARE
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
    IF owner IS NOT NULL THEN
        owned := ARRAY(SELECT s.id FROM immich_ai.source_asset s WHERE s.owner = ocr_search.owner AND s.visible LIMIT 5001);
        -- Comparing a text that is looked up takes some ten microseconds: 5000 cost no more than the texts of a common word do.
        IF cardinality(owned) > 5000 THEN
            owned := NULL;
        END IF;
    END IF;
    SELECT array_agg(f.asset_id), array_agg(f.score), array_agg(f.exact) INTO ids, scores, exacts
    FROM (
        SELECT c.asset_id, max(c.score) AS score, bool_or(c.exact) AS exact
        FROM jsonb_array_elements(alternatives) AS alternative,
             LATERAL immich_ai.text_candidates(alternative, owner, owned, least(1000, 4000 / jsonb_array_length(alternatives))) AS c
        GROUP BY c.asset_id
    ) AS f;
    IF ids IS NULL OR cardinality(ids) < 20 THEN -- else what comes after them is not on the first page
        SELECT array_agg(f.asset_id), array_agg(f.score) INTO near_ids, near_scores
        FROM (
            SELECT c.asset_id, max(c.score) AS score
            FROM jsonb_array_elements(alternatives) AS alternative,
                 LATERAL immich_ai.near_candidates(alternative, owner, owned, 200) AS c
            GROUP BY c.asset_id
        ) AS f
        WHERE ids IS NULL OR NOT f.asset_id = ANY (ids);
        ids := ids || near_ids;
        scores := scores || near_scores;
        exacts := exacts || array_fill(false, ARRAY[coalesce(cardinality(near_ids), 0)]);
    END IF;
    RETURN QUERY
        SELECT f.asset_id, (row_number() OVER (ORDER BY f.score DESC, f.asset_id))::integer, f.score, f.exact
        FROM unnest(ids, scores, exacts) AS f (asset_id, score, exact) ORDER BY 2 LIMIT most;
END
$$;
COMMENT ON FUNCTION immich_ai.ocr_search(jsonb, text, integer) IS
$$Pictures by the text in them, best first (rank from 1; score 0 to 1; exact: the whole query stands there letter by letter, or as the same number).
alternatives: [{"all": ["发票", "上海"], "none": ["2023"]}, ...]: a text must have all of "all" and none of "none" of one of them; folded
(lower case, half width, simplified). Beside each of "all", by search.query.alternatives: "quoted" (it must stand by itself, as written), "words"
(cut by Python, as tsquery; not needed where zhparser cuts), "forms" (numbers and dates, as tsquery), "same" (those that have the very number),
"near" (what may differ); "none_forms".
owner: whose pictures; null: everybody's. most: how many. Of a word that is in more than 1000 texts of one's own, 1000 are ranked; of each of
more than four alternatives, 4000 divided by their number. What is almost right is looked for where fewer than 20 texts have it.$$;
