-- Searches by text ask the source for what is on the timeline (0014) where a partner's pictures are searched, in place of leaving the rest out of what
-- they found: of a word in more than 1000 pictures of a partner, archived ones took the places of others. They cost less besides: lines to show come
-- by one look at all hits of a page, and there is no second look that can find nothing more. Both kinds of search together are below.
DROP FUNCTION immich_ai.on_timeline(uuid[]);
DROP FUNCTION immich_ai.near_candidates(immich_ai.question, text, uuid[], integer);
DROP FUNCTION immich_ai.text_candidates(immich_ai.question, text, uuid[], integer);
DROP FUNCTION immich_ai.smaller_side(immich_ai.question[], text);
DROP FUNCTION immich_ai.owned(text, integer);

-- At most `most` of the visible pictures of `owner`.
CREATE FUNCTION immich_ai.owned(owner text, most integer, timeline_only boolean DEFAULT false) RETURNS uuid[]
-- A bitmap would hold all of them before the first is counted.
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN ARRAY(
        SELECT s.id FROM immich_ai.source_asset s WHERE s.owner = owned.owner AND s.visible AND (s.on_timeline OR NOT timeline_only) LIMIT most
    );
END
$$;

-- The visible pictures of `owner` if a search should start at these; null: at the texts that match. Comparing one of the pictures costs as much as
-- looking up whose three texts are.
CREATE FUNCTION immich_ai.smaller_side(asked immich_ai.question[], owner text, timeline_only boolean DEFAULT false) RETURNS uuid[]
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
    owned := immich_ai.owned(owner, few + 1, timeline_only);
    RETURN CASE WHEN cardinality(owned) <= few THEN owned END;
END
$$;

-- The texts of one alternative of a query, at most `most` of them, in no order. `owned`: of smaller_side.
CREATE FUNCTION immich_ai.text_candidates(
    asked immich_ai.question, owner text, owned uuid[], most integer, timeline_only boolean DEFAULT false
)
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
                    WHERE s.id = d.asset_id AND s.visible AND (text_candidates.owner IS NULL OR s.owner = text_candidates.owner)
                      AND (s.on_timeline OR NOT timeline_only)
                    OFFSET 0
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
CREATE FUNCTION immich_ai.near_candidates(
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

DROP FUNCTION immich_ai.hybrid_search(jsonb, vector, text, text[], text, double precision, double precision, integer, integer);

CREATE FUNCTION immich_ai.hybrid_search(
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
        ORDER BY 2 LIMIT ocr_most
    ),
    meanings AS (
        SELECT f.asset_id, (row_number() OVER (ORDER BY f.similarity DESC, f.rank, f.asset_id))::integer AS rank, f.similarity
        FROM who, LATERAL immich_ai.clip_search(query, model, who.owner, clip_most, who.timeline_only) f
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
COMMENT ON FUNCTION immich_ai.hybrid_search(jsonb, vector, text, text[], text, double precision, double precision, integer, integer, text[]) IS
$$Pictures by text and by meaning in one order (place from 1), with both lists' ranks and scores.
alternatives, query, model: as for ocr_search and clip_search; a null leaves that list out.
owners: whose pictures; partners: whose pictures on the timeline; both null: everybody's.
fusion: rrf (each list gives weight / (60 + rank): Cormack, Clarke and Buettcher 2009), or weighted (clip_weight * similarity +
ocr_weight * text score). A picture in which the whole query stands is among the first ten, unless more than ten are such.
clip_most, ocr_most: how long the two lists are. Equal scores: text first; within a list, equal scores are ordered by id.$$;
