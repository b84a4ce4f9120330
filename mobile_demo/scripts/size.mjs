// After `npm run export:web`: what a visitor loads, in bytes of gzip; WebAssembly (the engine's runtime) is not counted.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const dist = join(dirname(fileURLToPath(import.meta.url)), '../dist');
const sizes = Object.fromEntries(
  readdirSync(dist, { recursive: true, withFileTypes: true })
    .filter((one) => one.isFile())
    .map((one) => join(one.parentPath ?? one.path, one.name).slice(dist.length + 1))
    // the glue beside each .wasm comes with it; packages and the docs' test page are put there by tests
    .filter((path) => !/\.map$|^metadata\.json$|^packages\/|litert_wasm|^docs-/.test(path))
    .sort()
    .map((path) => [path, gzipSync(readFileSync(join(dist, path))).length]),
);
if (process.argv.includes('--json')) console.log(JSON.stringify(sizes));
else {
  for (const [path, size] of Object.entries(sizes)) console.log(`${String(size).padStart(9)}  ${path}`);
  console.log(`${String(Object.values(sizes).reduce((sum, one) => sum + one, 0)).padStart(9)}  in all`);
}
