// Keeps the app itself for use without network. Packages are not its business: they lie in the private file system.
// scripts/precache.mjs fills in the two lines below after every export.
const VERSION = 'development';
const FILES = [];
const CACHE = `kobako-app-${VERSION}`;

self.addEventListener('install', (event) => {
  self.skipWaiting();
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)));
});

self.addEventListener('activate', (event) => event.waitUntil(takeOver()));

self.addEventListener('fetch', (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== 'GET' || url.origin !== self.location.origin || request.headers.has('range')) return;
  const inside = url.pathname.slice(new URL(self.registration.scope).pathname.length);
  const page = request.mode === 'navigate' && ['', 'index.html'].includes(inside);
  // the engine's runtime is kept when it is first used: 9 MB that a visitor without a package does not need
  if (page || FILES.includes(`./${inside}`) || /^engine\/litert_wasm/.test(inside)) {
    event.respondWith(keptFirst(request));
  }
});

async function takeOver() {
  for (const name of await caches.keys()) if (name !== CACHE) await caches.delete(name);
  await self.clients.claim();
}

async function keptFirst(request) {
  const cache = await caches.open(CACHE);
  const page = request.mode === 'navigate' ? new URL('./', self.registration.scope).href : request;
  const kept = await cache.match(page, { ignoreSearch: true });
  if (kept) return kept;
  const answer = await fetch(request);
  if (answer.ok && request.mode !== 'navigate') await cache.put(request, answer.clone());
  return answer;
}
