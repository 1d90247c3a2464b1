-- How a query is looked up, each thing worked out once: what an alternative asks for is one value, which the first look and the second share; plans
-- are kept by the session instead of being made for each query; and a search of one owner's pictures starts at the smaller side.

DROP FUNCTION immich_ai.near_candidates(jsonb, text, uuid[], integer);
DROP FUNCTION immich_ai.text_candidates(jsonb, text, uuid[], integer);
DROP FUNCTION immich_ai.asked(jsonb);
DROP FUNCTION immich_ai.text_score(text, text, boolean, boolean, boolean);

-- The grams of 0003, in PL/pgSQL: the planner tries to put a SQL function in line at every mention, which took a third of the time of planning.
CREATE OR REPLACE FUNCTION immich_ai.grams(folded text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 1000 AS $$
BEGIN
    RETURN (
        SELECT coalesce(array_agg(DISTINCT gram), '{}')
        FROM (
            SELECT a, lead(a, 1, ' ') OVER w AS b, lead(a, 2, ' ') OVER w AS c
            FROM unnest(string_to_array(left(folded, 100000), NULL)) WITH ORDINALITY AS characters (a, n)
            WINDOW w AS (ORDER BY n)
        ) AS runs,
        LATERAL (SELECT ascii(a) AS x, ascii(b) AS y, ascii(c) AS z) AS codes,
        LATERAL (VALUES
            (CASE WHEN x > 126 THEN a END),
            (CASE WHEN x > 32 AND y > 32 AND NOT (x BETWEEN 48 AND 57 OR x BETWEEN 97 AND 122)
                    OR x > 32 AND y > 32 AND NOT (y BETWEEN 48 AND 57 OR y BETWEEN 97 AND 122) THEN a || b END),
            (CASE WHEN x BETWEEN 33 AND 126 AND y BETWEEN 33 AND 126 AND z BETWEEN 33 AND 126 THEN a || b || c END)
        ) AS grams (gram)
        WHERE gram IS NOT NULL
    );
END
$$;

-- The grams of a needle that an index is asked for: not those within another one, which are in every text that has that one. Null: it has none.
CREATE FUNCTION immich_ai.longest_grams(needle text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    grams text[] := immich_ai.grams(needle);
BEGIN
    IF cardinality(grams) > 1 THEN
        RETURN ARRAY(
            SELECT g FROM unnest(grams) AS g
            EXCEPT SELECT part FROM unnest(grams) AS g, LATERAL (VALUES (left(g, -1)), (right(g, -1))) AS parts (part)
        );
    END IF;
    RETURN nullif(grams, '{}');
END
$$;

CREATE TYPE immich_ai.question AS (
    needle text,
    wanted text[],
    quoted boolean[],
    near jsonb,
    each_words tsquery[],
    each_grams text[],
    words tsquery,
    same tsquery,
    indexed_words tsquery,
    indexed_grams text[],
    patterns text[],
    phrases text[],
    unwanted_patterns text[],
    unwanted_exactly text[],
    unwanted_forms tsquery
);
COMMENT ON TYPE immich_ai.question IS
$$What one alternative of a query asks for, as immich_ai.asked makes it. Arrays that begin with each_ have one value for each of wanted.
each_words: words and forms. each_grams: longest_grams as the text of an array; null where there are none. words: all of each_words. same: the numbers
and dates that all of it are; null: not all are. indexed_words, indexed_grams: a text that matches has one of both; null: it need not be looked for.
patterns: LIKE patterns of wanted. phrases: regular expressions of what is quoted.$$;

-- What one alternative of a query asks for. ocr_search says what the JSON is.
CREATE FUNCTION immich_ai.asked(alternative jsonb) RETURNS immich_ai.question
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    asked immich_ai.question;
    word text;
    words tsquery;
    forms tsquery;
    grams text[];
    at integer := 0;
    grams_tell boolean := true; -- all that is wanted has grams
    words_tell boolean := false; -- something is found by words that grams do not find
BEGIN
    asked.wanted := ARRAY(SELECT jsonb_array_elements_text(alternative -> 'all'));
    asked.needle := array_to_string(asked.wanted, ' ');
    asked.near := alternative -> 'near';
    FOREACH word IN ARRAY asked.wanted LOOP
        words := immich_ai.query_words(ARRAY[word], alternative -> 'words' ->> at);
        forms := alternative -> 'forms' ->> at;
        grams := immich_ai.longest_grams(word);
        grams_tell := grams_tell AND grams IS NOT NULL;
        -- A text that has the needle itself as a word has its grams.
        words_tell := words_tell OR forms IS NOT NULL OR numnode(words) <> 1 OR NOT array_to_tsvector(ARRAY[word]) @@ words;
        words := words || coalesce(forms, '');
        asked.each_words := asked.each_words || words;
        asked.each_grams := asked.each_grams || grams::text;
        asked.words := CASE WHEN at = 0 THEN words ELSE asked.words && words END;
        asked.same := CASE WHEN at = 0 THEN (alternative -> 'same' ->> at)::tsquery ELSE asked.same && (alternative -> 'same' ->> at)::tsquery END;
        asked.indexed_grams := asked.indexed_grams || grams;
        asked.patterns := asked.patterns || immich_ai.containing(word);
        asked.quoted := asked.quoted || coalesce((alternative -> 'quoted' ->> at)::boolean, false);
        IF asked.quoted[at + 1] THEN
            asked.phrases := asked.phrases || immich_ai.exactly(word);
        END IF;
        at := at + 1;
    END LOOP;
    -- A needle of one or two letters has no gram, so that the index cannot promise it.
    IF NOT grams_tell THEN
        asked.indexed_grams := NULL;
    END IF;
    IF words_tell OR NOT grams_tell THEN
        asked.indexed_words := asked.words;
    END IF;
    IF jsonb_array_length(coalesce(alternative -> 'none', '[]')) > 0 THEN
        asked.unwanted_patterns := ARRAY(SELECT immich_ai.containing(u) FROM jsonb_array_elements_text(alternative -> 'none') AS u);
        asked.unwanted_exactly := ARRAY(SELECT immich_ai.exactly(u) FROM jsonb_array_elements_text(alternative -> 'none') AS u);
        asked.unwanted_forms := (SELECT string_agg(f, ' | ') FROM jsonb_array_elements_text(alternative -> 'none_forms') AS f)::tsquery;
    END IF;
    RETURN asked;
END
$$;

-- Whether a text has what is not wanted: `patterns`, `exactly` and `forms` are a question's.
CREATE FUNCTION immich_ai.has_unwanted(folded text, words tsvector, patterns text[], exactly text[], forms tsquery) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN patterns IS NOT NULL AND folded LIKE ANY (patterns) AND folded ~ ANY (exactly) OR forms IS NOT NULL AND words @@ forms;

-- At most `most` of the visible pictures of `owner`.
CREATE FUNCTION immich_ai.owned(owner text, most integer) RETURNS uuid[]
-- A bitmap would hold all of them before the first is counted.
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN ARRAY(SELECT s.id FROM immich_ai.source_asset s WHERE s.owner = owned.owner AND s.visible LIMIT most);
END
$$;

-- The visible pictures of `owner` if a search should start at these; null: at the texts that match. Comparing one of the pictures costs as much as
-- looking up whose three texts are.
CREATE FUNCTION immich_ai.smaller_side(asked immich_ai.question[], owner text) RETURNS uuid[]
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    first_texts constant integer := 1000;
    counted bigint;
    last_block bigint;
    blocks bigint;
    few integer;
    owned uuid[];
BEGIN
    IF owner IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT count(*), (max(found.ctid)::text::point)[0] INTO counted, last_block
    FROM (
        SELECT d.ctid FROM unnest(asked) AS a, immich_ai.ocr_document d
        WHERE d.words @@ a.indexed_words OR immich_ai.grams(d.folded) @> a.indexed_grams LIMIT first_texts
    ) AS found;
    IF counted < first_texts THEN
        RETURN NULL;
    END IF;
    -- Texts come in the order of the table: how far the last of these stands tells about how many there are.
    blocks := pg_relation_size('immich_ai.ocr_document') / current_setting('block_size')::integer;
    few := least(2500, first_texts * blocks / (last_block + 1) / 3);
    owned := immich_ai.owned(owner, few + 1);
    RETURN CASE WHEN cardinality(owned) <= few THEN owned END;
END
$$;

-- How well a folded text answers, 0 to 1. Exact hits have 0.5 and more, others less. Then: all needles are there letter by letter (0.1), as words
-- (0.2), the hit fills its line (0.1), the text is short (0.1). before: split_part(folded, needle, 1).
CREATE FUNCTION immich_ai.text_score(folded text, needle text, before text, exact boolean, letter_by_letter boolean, as_words boolean) RETURNS real
LANGUAGE sql IMMUTABLE PARALLEL SAFE
-- In bytes and float8: counting UTF-8's characters and adding numerics took longer than finding the text.
RETURN (
    CASE WHEN exact THEN
        0.5::float8 + 0.1::float8 * octet_length(needle) / (octet_length(needle)
            + octet_length(split_part(before, E'\n', -1))
            + octet_length(split_part(split_part(folded, needle, 2), E'\n', 1)))
    ELSE 0::float8 END
    + CASE WHEN letter_by_letter THEN 0.1::float8 ELSE 0::float8 END
    + CASE WHEN as_words THEN 0.2::float8 ELSE 0::float8 END
    + 0.1::float8 / (1 + octet_length(folded) / 500::float8)
)::real;

-- The texts of one alternative of a query, at most `most` of them, in no order. `owned`: of smaller_side.
CREATE FUNCTION immich_ai.text_candidates(asked immich_ai.question, owner text, owned uuid[], most integer)
RETURNS TABLE (asset_id uuid, score real, exact boolean)
LANGUAGE plpgsql STABLE ROWS 500
-- The planner has no statistics worth the name on words; both conditions have an index, and a text's picture is one look-up. There is one good
-- plan, so that it is made once in a session.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan
SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
#variable_conflict use_column
DECLARE
    several boolean := cardinality(asked.wanted) > 1; -- a single one that is there letter by letter is an exact hit
    letters_count boolean := asked.indexed_grams IS NOT NULL; -- only where a gram can promise them
BEGIN
    IF owned IS NULL THEN
        RETURN QUERY
            SELECT d.asset_id, immich_ai.text_score(d.folded, asked.needle, b.before, h.exact, h.exact OR h.letter_by_letter, h.as_words), h.exact
            FROM (
                -- A long text is compressed: unpacked once, for all that looks into it.
                SELECT d.asset_id, d.folded || '' AS folded, d.words
                FROM immich_ai.ocr_document d
                CROSS JOIN LATERAL (
                    -- Behind OFFSET 0, or the planner would start at the pictures and work out the grams of each.
                    SELECT FROM immich_ai.source_asset s
                    WHERE s.id = d.asset_id AND s.visible AND (text_candidates.owner IS NULL OR s.owner = text_candidates.owner) OFFSET 0
                ) a
                WHERE d.words @@ asked.indexed_words OR immich_ai.grams(d.folded) @> asked.indexed_grams
                OFFSET 0
            ) d,
            LATERAL (SELECT split_part(d.folded, asked.needle, 1) AS before OFFSET 0) b,
            LATERAL (
                SELECT b.before <> d.folded OR asked.same IS NOT NULL AND d.words @@ asked.same AS exact,
                       several AND d.folded LIKE ALL (asked.patterns) AS letter_by_letter, d.words @@ asked.words AS as_words
                OFFSET 0
            ) h
            WHERE (h.as_words OR letters_count AND (h.exact OR h.letter_by_letter))
              AND (asked.phrases IS NULL OR d.folded ~ ALL (asked.phrases))
              AND NOT immich_ai.has_unwanted(d.folded, d.words, asked.unwanted_patterns, asked.unwanted_exactly, asked.unwanted_forms)
            LIMIT most;
    ELSE
        RETURN QUERY
            SELECT d.asset_id, immich_ai.text_score(d.folded, asked.needle, b.before, h.exact, h.exact OR h.letter_by_letter, h.as_words), h.exact
            FROM (
                SELECT d.asset_id, d.folded || '' AS folded, d.words
                FROM unnest(owned) AS o (id) JOIN immich_ai.ocr_document d ON d.asset_id = o.id
                OFFSET 0
            ) d,
            LATERAL (SELECT split_part(d.folded, asked.needle, 1) AS before OFFSET 0) b,
            LATERAL (
                SELECT b.before <> d.folded OR asked.same IS NOT NULL AND d.words @@ asked.same AS exact,
                       several AND d.folded LIKE ALL (asked.patterns) AS letter_by_letter, d.words @@ asked.words AS as_words
                OFFSET 0
            ) h
            WHERE (h.as_words OR letters_count AND (h.exact OR h.letter_by_letter))
              AND (asked.phrases IS NULL OR d.folded ~ ALL (asked.phrases))
              AND NOT immich_ai.has_unwanted(d.folded, d.words, asked.unwanted_patterns, asked.unwanted_exactly, asked.unwanted_forms)
            LIMIT most;
    END IF;
END
$$;

-- Words of texts that are forms of a typed word (English) or sound like it (Chinese, typed in Pinyin). near: {"word": "invoices", ...}.
CREATE OR REPLACE FUNCTION immich_ai.close_words(near jsonb) RETURNS text[]
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    typed text := near ->> 'word';
    stem text[];
BEGIN
    IF typed IS NULL THEN
        RETURN '{}';
    END IF;
    stem := ts_lexize('pg_catalog.english_stem'::regdictionary, typed);
    RETURN ARRAY(
        (SELECT w.word FROM immich_ai.word w
         WHERE ts_lexize('pg_catalog.english_stem'::regdictionary, w.word::text) = stem AND w.sounds = '{}' AND stem <> '{}' LIMIT 50)
        UNION
        (SELECT w.word FROM immich_ai.word w WHERE length(typed) >= 4 AND w.sounds @> ARRAY[replace(typed, 'v', 'u')] LIMIT 50)
    );
END
$$;

-- Words of texts that differ from a typed one by a letter. near: {"first": its first half, "last": its second, "patterns": LIKE patterns}.
-- Whatever differs by a letter has one of the halves.
CREATE OR REPLACE FUNCTION immich_ai.misspelt_words(near jsonb) RETURNS text[]
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    first text COLLATE "C" := near ->> 'first';
    last text COLLATE "C" := reverse(near ->> 'last');
    patterns text[];
BEGIN
    IF first IS NULL THEN
        RETURN '{}';
    END IF;
    patterns := ARRAY(SELECT jsonb_array_elements_text(near -> 'patterns'));
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

-- Words as a tsquery of the texts that have one of them; empty where there are none.
CREATE FUNCTION immich_ai.either(words text[]) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN coalesce((SELECT string_agg(quote_literal(w), ' | ') FROM unnest(words) AS w), '');
END
$$;

-- The texts that have all of one alternative of a query in some way: as text_candidates finds it, or almost. In no order; scores are below 0.2,
-- and below 0.1 where a character differs.
CREATE FUNCTION immich_ai.near_candidates(asked immich_ai.question, owner text, owned uuid[], most integer)
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
    anything boolean := cardinality(asked.wanted) > 1; -- one as a word and another as a part of one is nothing that text_candidates finds
BEGIN
    FOR at IN 1 .. cardinality(asked.wanted) LOOP
        near := CASE WHEN NOT asked.quoted[at] THEN nullif(asked.near -> (at - 1), 'null') END;
        close := immich_ai.close_words(near);
        misspelt := immich_ai.misspelt_words(near);
        anything := anything OR cardinality(close || misspelt) > 0 OR coalesce(near ? 'pieces', false);
        IF NOT anything THEN
            RETURN;
        END IF;
        likely := format('d.words @@ %L::tsquery', asked.each_words[at] || immich_ai.either(close));
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
    RETURN QUERY EXECUTE format(
        'SELECT d.asset_id, (CASE WHEN %1$s THEN 0.1::float8 ELSE 0::float8 END + 0.1::float8 / (1.001 + octet_length(d.folded) / 500::float8))::real
         FROM %2$s
         WHERE %3$s AND %4$s AND NOT immich_ai.has_unwanted(d.folded, d.words, $4, $5, $6)
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
    ) USING owner, owned, most, asked.unwanted_patterns, asked.unwanted_exactly, asked.unwanted_forms;
END
$$;

CREATE OR REPLACE FUNCTION immich_ai.ocr_search(alternatives jsonb, owner text DEFAULT NULL, most integer DEFAULT 500)
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
    owned := immich_ai.smaller_side(asked, owner);
    SELECT array_agg(f.asset_id), array_agg(f.score), array_agg(f.exact) INTO ids, scores, exacts
    FROM (
        SELECT c.asset_id, max(c.score) AS score, bool_or(c.exact) AS exact
        FROM unnest(asked) AS one, LATERAL immich_ai.text_candidates(one, owner, owned, least(1000, 4000 / cardinality(asked))) AS c
        GROUP BY c.asset_id
    ) AS f;
    IF ids IS NULL OR cardinality(ids) < 20 THEN -- else what comes after them is not on the first page
        SELECT array_agg(f.asset_id), array_agg(f.score) INTO near_ids, near_scores
        FROM (
            SELECT c.asset_id, max(c.score) AS score
            FROM unnest(asked) AS one, LATERAL immich_ai.near_candidates(one, owner, owned, 200) AS c
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
