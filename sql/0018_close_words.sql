-- Words that are close, two kinds more: irregular plurals of English nouns, and Chinese whose syllables were typed apart.

-- Words of texts that are forms of a typed word (English) or sound like it, or like it and its neighbours together (Chinese, typed in Pinyin).
-- near: {"word": "children", "other": "child", "sounds": []}, of which each may be missing.
CREATE OR REPLACE FUNCTION immich_ai.close_words(near jsonb) RETURNS text[]
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    typed text := near ->> 'word';
    other text := near ->> 'other';
    stem text[];
    heard text[] := '{}';
BEGIN
    IF near ? 'sounds' THEN
        heard := ARRAY(SELECT jsonb_array_elements_text(near -> 'sounds'));
    END IF;
    IF length(typed) >= 4 THEN
        heard := heard || replace(typed, 'v', 'u');
    END IF;
    IF typed IS NULL AND heard = '{}' THEN
        RETURN '{}';
    END IF;
    stem := ts_lexize('pg_catalog.english_stem'::regdictionary, typed);
    RETURN ARRAY(
        (SELECT w.word FROM immich_ai.word w
         WHERE ts_lexize('pg_catalog.english_stem'::regdictionary, w.word::text) = stem AND w.sounds = '{}' AND stem <> '{}' LIMIT 50)
        UNION
        (SELECT w.word FROM immich_ai.word w WHERE w.word = other)
        UNION
        (SELECT w.word FROM immich_ai.word w WHERE cardinality(heard) > 0 AND w.sounds && heard LIMIT 50)
    );
END
$$;
