/**
 * `kobako-set.json`: several packages, and a table of which one does what. What is checked here is what
 * pipeline/set.schema.json promises; docs/sets.md tells the rules.
 */
import { fromUtf8 } from '../bytes';
import { AppError } from '../errors';

export const SET_FILE = 'kobako-set.json';
export const MAX_SET_BYTES = 2 ** 20;
const FORMAT_MAJOR = '1';
const MOST_MEMBERS = 64;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

export interface SetMember {
  readonly name: string;
  /** A path inside the set, or the address of a published package. */
  readonly where: string;
  /** Of its kobako.json, which lists the digest of every other file. */
  readonly manifest_sha256: string;
}

export interface Route {
  readonly task: string;
  readonly member: string;
  readonly from?: string;
  readonly to?: string;
  readonly domain?: string;
}

export interface PackageSet {
  readonly name: string;
  readonly members: readonly SetMember[];
  readonly routes: readonly Route[];
}

/** Whether a member travels with the set. */
export const isInside = (member: SetMember): boolean => !member.where.includes('://');

/** Raises AppError `notPackage` or `tooNew`. */
export function parseSet(bytes: Uint8Array): PackageSet {
  if (bytes.length > MAX_SET_BYTES) throw bad('it is larger than any set');
  let data: unknown;
  try {
    data = JSON.parse(fromUtf8(bytes));
  } catch (error) {
    throw bad(`it is not JSON: ${String(error)}`);
  }
  const it = record(data);
  const version = text(it, 'format_version', /^\d+\.\d+$/);
  if (version.split('.')[0] !== FORMAT_MAJOR) {
    throw new AppError('tooNew', `the set has format ${version}; this app reads ${FORMAT_MAJOR}.x`);
  }
  text(it, 'name', NAME);
  const members = list(it.members).map(checkMember);
  if (members.length === 0 || members.length > MOST_MEMBERS) throw bad(`it has ${members.length} members`);
  const names = new Set(members.map((member) => member.name));
  if (names.size !== members.length) throw bad('two members have one name');
  const routes = list(it.routes).map((route) => checkRoute(route, names));
  return { name: it.name as string, members, routes };
}

function checkMember(value: unknown): SetMember {
  const member = record(value);
  const where = text(member, 'where');
  const inside = !where.includes('://');
  if (inside && !where.split('/').every((part) => NAME.test(part))) throw bad(`${where} lies outside the set`);
  return { name: text(member, 'name', NAME), where, manifest_sha256: text(member, 'manifest_sha256', /^[0-9a-f]{64}$/) };
}

function checkRoute(value: unknown, names: ReadonlySet<string>): Route {
  const route = record(value);
  for (const key of ['from', 'to', 'domain']) if (route[key] !== undefined) text(route, key);
  text(route, 'task', /^[a-z][a-z0-9-]*$/);
  if (!names.has(text(route, 'member'))) throw bad(`a route leads to ${String(route.member)}, which is no member`);
  return route as unknown as Route;
}

/** How the app remembers which package does a task: for all languages, into one, or from one into another. */
export function bindingKey(task: string, from?: string, to?: string): string {
  if (from === undefined && to === undefined) return task;
  return from === undefined ? `${task}:${to}` : `${task}:${from}/${to ?? ''}`;
}

/** Task → package as the set says. Rows for a domain are passed over: nothing in the app tells what a text is about. */
export const bindingsOf = (set: PackageSet): Readonly<Record<string, string>> =>
  Object.fromEntries(
    set.routes
      .filter((route) => route.domain === undefined)
      .map((route) => [bindingKey(route.task, route.from, route.to), route.member]),
  );

const bad = (what: string) => new AppError('notPackage', `${SET_FILE}: ${what}`);

function record(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad('something is not an object');
  return value as Record<string, unknown>;
}

function list(value: unknown): unknown[] {
  if (!Array.isArray(value)) throw bad('something is not a list');
  return value;
}

function text(owner: Record<string, unknown>, key: string, form?: RegExp): string {
  const value = owner[key];
  if (typeof value !== 'string' || value === '' || (form && !form.test(value))) throw bad(`${key} is not what it should be`);
  return value;
}
