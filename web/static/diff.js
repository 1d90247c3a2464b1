// What is different between two lists of lines.

/**
 * Return the lines of both, in order, as `{kind, text}`; kind is same, gone or new. The longest common subsequence
 * stays; up to 2,000 lines each, beyond which all of the first is gone and all of the second new.
 */
export function difference(before, after) {
  if (before.length > 2000 || after.length > 2000) {
    return [...before.map((text) => ({ kind: "gone", text })), ...after.map((text) => ({ kind: "new", text }))];
  }
  const lengths = Array.from({ length: before.length + 1 }, () => new Uint16Array(after.length + 1));
  for (let i = before.length - 1; i >= 0; i--) {
    for (let j = after.length - 1; j >= 0; j--) {
      lengths[i][j] = before[i] === after[j] ? lengths[i + 1][j + 1] + 1
        : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
    }
  }
  const found = [];
  let i = 0;
  let j = 0;
  while (i < before.length || j < after.length) {
    if (i < before.length && j < after.length && before[i] === after[j]) {
      found.push({ kind: "same", text: before[i] });
      i++;
      j++;
    } else if (j >= after.length || (i < before.length && lengths[i + 1][j] >= lengths[i][j + 1])) {
      found.push({ kind: "gone", text: before[i++] });
    } else {
      found.push({ kind: "new", text: after[j++] });
    }
  }
  return found;
}
