/**
 * `kobako.json`, parsed with bounds: the only thing the app reads to know a package. What is checked here is what
 * pipeline/manifest.schema.json promises, as far as the app relies on it.
 */
import { fromUtf8 } from '../bytes';
import { AppError } from '../errors';

export const FORMAT_MAJOR = '1';
export const MAX_MANIFEST_BYTES = 4 * 2 ** 20;

export interface FileEntry {
  readonly path: string;
  readonly size_bytes: number;
  readonly sha256: string;
}

export interface Message {
  readonly role: string;
  readonly content: string;
}

/** A prompt builder that is data; see pipeline/contracts.py. */
export interface Task {
  readonly name: string;
  readonly messages: readonly Message[];
  readonly prompt: string;
  readonly stop: readonly string[];
  readonly max_new_tokens: number;
  /** BCP 47 codes the task is good for; for a task with `fills`, the languages it translates into. */
  readonly languages: readonly string[];
  /** What each target language puts into the prompt, by field name. */
  readonly fills?: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

export interface Target {
  readonly files: readonly FileEntry[];
  readonly activations: 'float32' | 'float16' | 'int8-dynamic';
  readonly needs: { readonly ram_bytes: number; readonly kv_cache_bytes?: number; readonly runtimes: Readonly<Record<string, string>> };
  readonly proven: boolean;
  readonly details: Readonly<Record<string, unknown>>;
  /** The file with per-layer inputs that the target is fed from, shared by all that are. */
  readonly table?: string;
}

export interface Manifest {
  readonly format_version: string;
  readonly name: string;
  readonly build_id: string;
  readonly model: { readonly name: string; readonly licence: string; readonly origin: string; readonly revision: string };
  readonly recipe: { readonly name: string; readonly weight_bits: number };
  readonly context_tokens: number;
  /** How keys and values are kept; packages made before it was told keep them in float. */
  readonly kv_cache?: 'float' | 'int8';
  readonly stop_ids: readonly number[];
  readonly chat_template: string | null;
  readonly tasks: readonly Task[];
  readonly targets: Readonly<Record<string, Target>>;
  readonly files: readonly FileEntry[];
  readonly proven: boolean;
}

/** Raises AppError `notPackage` or `tooNew`. */
export function parseManifest(bytes: Uint8Array): Manifest {
  if (bytes.length > MAX_MANIFEST_BYTES) throw bad('kobako.json is larger than any manifest');
  let data: unknown;
  try {
    data = JSON.parse(fromUtf8(bytes));
  } catch (error) {
    throw bad(`kobako.json is not JSON: ${String(error)}`);
  }
  const it = object(data, 'kobako.json');
  const version = text(it, 'format_version', /^\d+\.\d+$/);
  if (version.split('.')[0] !== FORMAT_MAJOR) {
    throw new AppError('tooNew', `the package has format ${version}; this app reads ${FORMAT_MAJOR}.x`);
  }
  if (it.kind === 'encoder') throw bad('it answers with vectors or labels; this app runs models that write text');
  text(it, 'name', /^[A-Za-z0-9][A-Za-z0-9._-]*$/);
  text(it, 'build_id', /^[0-9a-f]{32}$/);
  whole(it, 'context_tokens', 1);
  if (typeof it.proven !== 'boolean') throw bad('proven is missing');
  const model = object(it.model, 'model');
  for (const key of ['name', 'licence', 'origin', 'revision']) text(model, key);
  text(object(it.recipe, 'recipe'), 'name');
  for (const id of list(it.stop_ids, 'stop_ids')) if (!Number.isInteger(id)) throw bad('stop_ids');
  if (it.chat_template !== null && typeof it.chat_template !== 'string') throw bad('chat_template');
  list(it.tasks, 'tasks').forEach(checkTask);
  const targets = object(it.targets, 'targets');
  if (Object.keys(targets).length === 0) throw bad('no targets');
  Object.entries(targets).forEach(([name, target]) => checkTarget(name, target));
  checkFiles(it.files, 'files');
  const manifest = data as Manifest;
  for (const { table } of Object.values(manifest.targets)) {
    if (table !== undefined && !manifest.files.some((file) => file.path === table)) throw bad('a table that is not among the files');
  }
  return manifest;
}

/** Whether a manifest is of a model that answers with vectors or labels, which this app does not run. */
export function isEncoder(bytes: Uint8Array): boolean {
  try {
    return JSON.parse(fromUtf8(bytes)).kind === 'encoder';
  } catch {
    return false; // parseManifest says what is wrong
  }
}

/** Every file an engine needs: the target's own without what `skip` matches, its table, tokenizer, golden files, legal texts. */
export function filesFor(manifest: Manifest, target: string, skip?: RegExp): readonly FileEntry[] {
  const { files: own = [], table } = manifest.targets[target] ?? {};
  const shared = manifest.files.filter(
    (file) => file.path === table || /^(tokenizer\/|golden\/|LICENSE|NOTICE|USE_POLICY)/.test(file.path),
  );
  return [...shared, ...own.filter((file) => !skip?.test(file.path))];
}

export const totalBytes = (files: readonly FileEntry[]): number => files.reduce((sum, file) => sum + file.size_bytes, 0);

const bad = (what: string) => new AppError('notPackage', what);

function object(value: unknown, name: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad(`${name} is not an object`);
  return value as Record<string, unknown>;
}

function list(value: unknown, name: string): unknown[] {
  if (!Array.isArray(value)) throw bad(`${name} is not a list`);
  return value;
}

function text(owner: Record<string, unknown>, key: string, form?: RegExp): string {
  const value = owner[key];
  if (typeof value !== 'string' || (form && !form.test(value))) throw bad(`${key} is not what it should be`);
  return value;
}

function whole(owner: Record<string, unknown>, key: string, least: number): void {
  if (!Number.isSafeInteger(owner[key]) || (owner[key] as number) < least) throw bad(`${key} is not a number from ${least}`);
}

function checkTask(value: unknown): void {
  const task = object(value, 'task');
  text(task, 'name');
  text(task, 'prompt');
  whole(task, 'max_new_tokens', 1);
  for (const key of ['stop', 'languages']) {
    for (const one of list(task[key], key)) if (typeof one !== 'string') throw bad(key);
  }
  for (const fill of Object.values(object(task.fills ?? {}, 'fills'))) {
    for (const one of Object.values(object(fill, 'fills'))) if (typeof one !== 'string') throw bad('fills');
  }
  for (const message of list(task.messages, 'messages')) {
    text(object(message, 'message'), 'role');
    text(object(message, 'message'), 'content');
  }
}

function checkTarget(name: string, value: unknown): void {
  if (!/^[a-z0-9_]+$/.test(name)) throw bad(`target ${name}`);
  const target = object(value, name);
  text(target, 'activations', /^(float32|float16|int8-dynamic)$/);
  whole(object(target.needs, 'needs'), 'ram_bytes', 0);
  object(target.details, 'details');
  checkFiles(target.files, `${name} files`);
}

function checkFiles(value: unknown, name: string): void {
  for (const one of list(value, name)) {
    const file = object(one, name);
    const path = text(file, 'path');
    const parts = path.split('/');
    if (path.includes('\\') || path.includes('\0') || parts.some((part) => part === '' || part === '.' || part === '..')) {
      throw bad(`${path} lies outside the package`);
    }
    whole(file, 'size_bytes', 0);
    text(file, 'sha256', /^[0-9a-f]{64}$/);
  }
}
