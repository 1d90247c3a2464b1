// Who looks at the page, and what they may do.

import { get } from "./client.js";

let me = { visitor: null };

/** Ask the service who this is. */
export async function loadVisitor() {
  me = await get("me");
  return me;
}

export const visitor = () => me.visitor;
export const source = () => me.source;

/** Return whether the pictures are Immich's. */
export const ofImmich = () => (me.source ?? "").startsWith("immich");

/** Return the address of an asset's page in Immich; null where there is no Immich, or nobody knows its address. */
export function immichLink(id) {
  return ofImmich() && me.immich_address !== null ? `${me.immich_address}/photos/${id}` : null;
}

export const service = () => me;
