import { utf8 } from '../src/bytes';
import { filesFor, parseManifest } from '../src/packages/manifest';
import { tinyManifest } from './helpers';

const files = { 'tokenizer/tokenizer.json': utf8('{}'), 'report.html': utf8('x'), 'litert/model.tflite': utf8('m'), 'litert/model.litertlm': utf8('n') };
const bytes = (manifest: unknown) => utf8(JSON.stringify(manifest));

test('a manifest of the pipeline is read, and an engine gets its own files only', () => {
  const manifest = parseManifest(bytes(tinyManifest(files)));
  expect(filesFor(manifest, 'litert', /\.litertlm$/).map((file) => file.path)).toEqual(['tokenizer/tokenizer.json', 'litert/model.tflite']);
});

test('a table of per-layer inputs goes to the targets that are fed from it', () => {
  const { targets, ...rest } = tinyManifest(files);
  const table = { path: 'embeddings.safetensors', size_bytes: 1, sha256: '0'.repeat(64) };
  const fed = { ...targets.litert, files: [], table: table.path };
  const manifest = parseManifest(bytes({ ...rest, files: [...rest.files, table], targets: { ...targets, coreml: fed } }));
  expect(filesFor(manifest, 'coreml').map((file) => file.path)).toContain(table.path);
  expect(filesFor(manifest, 'litert').map((file) => file.path)).not.toContain(table.path);
});

test.each([
  ['../outside'], ['/etc/passwd'], ['a//b'], ['a/./b'], ['a\\b'], [''],
])('the path %p is refused', (path) => {
  const manifest = tinyManifest(files);
  const bad = { ...manifest, files: [{ path, size_bytes: 1, sha256: '0'.repeat(64) }] };
  expect(() => parseManifest(bytes(bad))).toThrow(/notPackage/);
});

test('a later major version is told apart from rubbish', () => {
  expect(() => parseManifest(bytes({ ...tinyManifest(files), format_version: '2.0' }))).toThrow(/tooNew/);
  expect(() => parseManifest(utf8('<html>'))).toThrow(/notPackage/);
  expect(() => parseManifest(bytes({ format_version: '1.0' }))).toThrow(/notPackage/);
  expect(parseManifest(bytes({ ...tinyManifest(files), format_version: '1.7', something_new: 1 })).format_version).toBe('1.7');
});

test('an encoder is refused in words', () => {
  const encoder = { ...tinyManifest(files), kind: 'encoder', tasks: [] };
  expect(() => parseManifest(bytes(encoder))).toThrow(/vectors or labels/);
  expect(parseManifest(bytes({ ...tinyManifest(files), kind: 'decoder' })).name).toBe(tinyManifest(files).name);
});

test.each([
  ['a name that leaves the directory', { name: '..' }],
  ['a size that is no number', { files: [{ path: 'a', size_bytes: '1', sha256: '0'.repeat(64) }] }],
  ['a digest that is none', { files: [{ path: 'a', size_bytes: 1, sha256: 'zz' }] }],
  ['no target', { targets: {} }],
  ['a table from outside', { targets: { litert: { ...tinyManifest(files).targets.litert, table: '../embeddings.safetensors' } } }],
  ['stop ids that are words', { stop_ids: ['eos'] }],
  ['a task without prompt', { tasks: [{ name: 'x', messages: [], stop: [], max_new_tokens: 1, languages: [] }] }],
  ['an unproven flag that is missing', { proven: undefined }],
])('%s is refused', (_, change) => {
  expect(() => parseManifest(bytes({ ...tinyManifest(files), ...change }))).toThrow(/notPackage/);
});
