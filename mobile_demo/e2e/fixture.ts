/** Several faces of one package: signed, unsigned, tampered with. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { join } from 'node:path';

import type { BrowserContext } from 'playwright-core';

import type { AppPage } from './page';
import { TestServer } from './server';
import { signBundle } from './sign';
import type { Steps } from './steps';

/**
 * What is summarized. This package rounds activations to int8, where the last bits of a sum decide near ties: the
 * browser's and the desktop's kernels may part there (docs/adr/0004). On this text the best word is nowhere less than a
 * whole logit ahead of the second, so both must say the very same.
 */
export const TEXT = readFileSync(join(__dirname, 'text.txt'), 'utf8').trim();

/** Longer, for an answer that can be stopped in the middle. */
export const LONG_TEXT = readFileSync(join(__dirname, 'long.txt'), 'utf8').trim();

export interface All {
  readonly app: AppPage;
  readonly server: TestServer;
  readonly steps: Steps;
  readonly context: BrowserContext;
  readonly publicPem: string;
  /** Where the package lies that the pipeline built. */
  readonly directory: string;
  readonly expected: { text: string };
}

const sha256 = (data: Buffer): string => createHash('sha256').update(data).digest('hex');

export function makeServer(app: string, directory: string): { server: TestServer; publicPem: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const publicPem = publicKey.export({ type: 'spki', format: 'pem' }).toString();
  const manifest = withTranslate(readFileSync(join(directory, 'kobako.json')));
  const signature = signatureOf(manifest, privateKey, publicPem);
  const tokenizer = Buffer.from(readFileSync(join(directory, 'tokenizer/tokenizer.json')));
  const middle = Math.floor(tokenizer.length / 2);
  tokenizer[middle] = (tokenizer[middle] ?? 0) ^ 1;
  const changed = Buffer.from(manifest.toString().replace('in one sentence', 'in two sentences'));
  const packages = {
    smollm2: { directory, replaced: { 'model.sig': signature, 'kobako.json': manifest } },
    // as docs/app/web.md calls it
    model: { directory, replaced: {} },
    unsigned: { directory, replaced: { 'model.sig': null } },
    'bad-file': { directory, replaced: { 'model.sig': signature, 'kobako.json': manifest, 'tokenizer/tokenizer.json': tokenizer } },
    'bad-manifest': { directory, replaced: { 'model.sig': signature, 'kobako.json': changed } },
  };
  return { server: new TestServer(app, packages), publicPem };
}

/**
 * The same package saying that it translates, in the form pipeline/tasks.py gives to base models. This model does that
 * badly; what is tested is the screen, on a real engine.
 */
function withTranslate(manifest: Buffer): Buffer {
  const data = JSON.parse(manifest.toString());
  if (data.tasks.some((task: { name: string }) => task.name === 'translate')) return manifest;
  const examples = (name: string, one: string, two: string) =>
    `English: Good morning.\n${name}: ${one}\n\nEnglish: I would like a cup of coffee, please.\n${name}: ${two}\n\n`;
  const fills = {
    fr: { target: 'French', examples: examples('French', 'Bonjour.', "Je voudrais une tasse de café, s'il vous plaît.") },
    es: { target: 'Spanish', examples: examples('Spanish', 'Buenos días.', 'Quisiera una taza de café, por favor.') },
  };
  const prompt = '{examples}English: {text}\n{target}:';
  data.tasks.push({ name: 'translate', messages: [], prompt, stop: ['\n'], max_new_tokens: 48, languages: ['fr', 'es'], fills });
  return Buffer.from(JSON.stringify(data, null, 1));
}

function signatureOf(manifest: Buffer, privateKey: KeyObject, publicPem: string): Buffer {
  const data = JSON.parse(manifest.toString());
  const digests: Record<string, string> = { 'kobako.json': sha256(manifest) };
  const targets = Object.values(data.targets) as { files: { path: string; sha256: string }[] }[];
  for (const file of [...data.files, ...targets.flatMap((one) => one.files)]) digests[file.path] = file.sha256;
  return Buffer.from(signBundle(digests, privateKey, publicPem));
}
