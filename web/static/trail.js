// The list that a photo was opened from, so that "next" means the next of that list.

let ids = [];

/** Keep the ids of a list, in its order. */
export function remember(list) {
  ids = list;
}

/** Return the ids before and after `id` in the list that it was opened from; null where it is not in one. */
export function beside(id) {
  const at = ids.indexOf(id);
  return at < 0 ? null : { previous: ids[at - 1] ?? null, next: ids[at + 1] ?? null };
}
