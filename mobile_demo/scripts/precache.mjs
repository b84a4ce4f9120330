// After `expo export`: tells dist/sw.js which files make up the app, so that it works without network.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const dist = join(dirname(fileURLToPath(import.meta.url)), '../dist');
const files = readdirSync(dist, { recursive: true, withFileTypes: true })
  .filter((one) => one.isFile())
  .map((one) => join(one.parentPath ?? one.path, one.name).slice(dist.length + 1))
  .filter((path) => !/\.map$|^sw\.js$|^metadata\.json$|^packages\/|litert_wasm|index\.html$/.test(path))
  .sort();
const version = createHash('sha256');
for (const path of ['index.html', ...files]) version.update(path).update(readFileSync(join(dist, path)));
const names = ['./', ...files.map((path) => `./${path}`)];
const worker = readFileSync(join(dist, 'sw.js'), 'utf8')
  .replace(/^const VERSION = .*$/m, `const VERSION = '${version.digest('hex').slice(0, 16)}';`)
  .replace(/^const FILES = .*$/m, `const FILES = ${JSON.stringify(names)};`);
writeFileSync(join(dist, 'sw.js'), worker);
