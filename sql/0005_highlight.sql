-- Where in a picture the hit is.

-- The lines of one picture that contain one of `needles` (folded). The document's lines stand in the order of the source's; where their
-- numbers differ (Immich has read anew and search.immich.sync has not seen it yet) all lines come, and search.query.find looks.
CREATE FUNCTION immich_ai.highlight(asset_id uuid, needles text[])
RETURNS TABLE (n integer, text text, box real[], box_score real, text_score real)
LANGUAGE sql STABLE ROWS 5 AS $$
    WITH folded AS MATERIALIZED (
        SELECT string_to_array(d.folded, E'\n') AS lines FROM immich_ai.ocr_document d WHERE d.asset_id = highlight.asset_id
    ),
    lines AS MATERIALIZED (
        SELECT l.*, row_number() OVER (ORDER BY l.n) AS at, count(*) OVER () AS total
        FROM immich_ai.source_line l WHERE l.asset_id = highlight.asset_id
    )
    SELECT l.n, l.text, ARRAY[l.x1, l.y1, l.x2, l.y2, l.x3, l.y3, l.x4, l.y4], l.box_score, l.text_score
    FROM lines l CROSS JOIN folded f
    WHERE l.total <> cardinality(f.lines)
       OR EXISTS (SELECT FROM unnest(needles) AS needle WHERE strpos(f.lines[l.at], needle) > 0)
    ORDER BY l.n
$$;
COMMENT ON FUNCTION immich_ai.highlight(uuid, text[]) IS
'The lines of one picture that contain one of needles (folded texts), with boxes: x1, y1 to x4, y4, clockwise from the top left, as fractions.';

-- The same as one value: [[n, text, [x1, ..., y4], box_score, text_score], ...].
CREATE FUNCTION immich_ai.highlighted(asset_id uuid, needles text[]) RETURNS json
LANGUAGE sql STABLE AS $$
    SELECT json_agg(json_build_array(h.n, h.text, h.box, h.box_score, h.text_score) ORDER BY h.n)
    FROM immich_ai.highlight(asset_id, needles) h
$$;
