-- Searches by text do less, and find the same in the same order. A text of our own index has its picture, which need not be looked up in a search of
-- everybody's: that took a third of the time of a common word. And an owner who plainly has many pictures is told by a few of them, without a look at
-- the texts.

-- The visible pictures of `owner` if a search should start at these; null: at the texts that match. Comparing one of the pictures costs as much as
-- looking up whose three texts are.
CREATE OR REPLACE FUNCTION immich_ai.smaller_side(asked immich_ai.question[], owner text, timeline_only boolean DEFAULT false) RETURNS uuid[]
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    first_texts constant integer := 1000;
    most_pictures constant integer := 2500;
    sample constant integer := 64;
    counted bigint;
    last_block bigint;
    blocks bigint;
    few integer;
    owned uuid[];
BEGIN
    IF owner IS NULL THEN
        RETURN NULL;
    END IF;
    -- Of the pictures whose ids come first, as ids are drawn at random: an owner of an eighth of them and more has about that share of all, of which
    -- there are as many as texts at least. Taken by half, as a sample may be wrong.
    counted := (
        SELECT count(*) FILTER (WHERE s.owner = smaller_side.owner AND (s.on_timeline OR NOT timeline_only))
        FROM (SELECT a.owner, a.on_timeline FROM immich_ai.source_asset a ORDER BY a.id LIMIT sample) AS s
    );
    IF counted >= sample / 8 AND counted * (SELECT c.reltuples FROM pg_class c WHERE c.oid = 'immich_ai.ocr_document'::regclass) > 2 * sample * most_pictures
    THEN
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
    few := least(most_pictures, first_texts * blocks / (last_block + 1) / 3);
    owned := immich_ai.owned(owner, few + 1, timeline_only);
    RETURN CASE WHEN cardinality(owned) <= few THEN owned END;
END
$$;

-- The texts of one alternative of a query, at most `most` of them, in no order. `owned`: of smaller_side.
CREATE OR REPLACE FUNCTION immich_ai.text_candidates(
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
    -- In our own index, all pictures of which are visible. Texts of Immich's that stay from before have no picture there.
    everybodys boolean := owner IS NULL AND (SELECT s.value = 'standalone' FROM immich_ai.setting s WHERE s.name = 'source');
BEGIN
    IF owned IS NULL THEN
        RETURN QUERY
            SELECT d.asset_id, immich_ai.text_score(d.folded, asked.needle, b.before, h.exact, h.exact OR h.letter_by_letter, h.as_words), h.exact
            FROM (
                -- A long text is compressed: unpacked once, for all that looks into it.
                SELECT d.asset_id, d.folded || '' AS folded, d.words
                FROM immich_ai.ocr_document d
                WHERE (d.words @@ asked.indexed_words OR immich_ai.grams(d.folded) @> asked.indexed_grams)
                  AND (everybodys AND d.source_read_at IS NULL AND d.source_digest IS NULL OR EXISTS (
                      SELECT FROM immich_ai.source_asset s
                      WHERE s.id = d.asset_id AND s.visible AND (text_candidates.owner IS NULL OR s.owner = text_candidates.owner)
                        AND (s.on_timeline OR NOT timeline_only)
                      OFFSET 0 -- or all pictures would be hashed first
                  ))
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
