// An Idempotency-Key. Browsers have crypto.randomUUID only over https and on their own machine; a
// service in one's own network may have neither.

export function onceKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
