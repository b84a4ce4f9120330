/** Which installed package does a task: what a set or the user has bound, or else the first that can. */
import type { Installed } from '../packages/library';
import type { Task } from '../packages/manifest';
import { bindingKey } from '../packages/settable';
import { directions } from './languages';

export type Bindings = Readonly<Record<string, string>>;

export interface Doing {
  readonly installed: Installed;
  readonly task: Task;
}

export interface Languages {
  readonly sources: readonly string[];
  readonly targets: readonly string[];
}

/** The package for a task, and for a pair of languages where that makes a difference. */
export function chosenFor(task: string, installed: readonly Installed[], bindings: Bindings, pair?: { source: string; target: string }): Doing | null {
  const able = installed.flatMap((one) => one.manifest.tasks.filter((its) => its.name === task).map((its) => ({ installed: one, task: its })));
  const { source, target } = pair ?? {};
  const keys = pair ? [bindingKey(task, source, target), bindingKey(task, undefined, target), bindingKey(task, source), task] : [task];
  for (const key of keys) {
    const bound = able.find((one) => one.installed.manifest.name === bindings[key]);
    if (bound) return bound;
  }
  return able[0] ?? null;
}

/** What can be translated with the default package, and with those bound to certain languages. */
export function servedLanguages(task: string, installed: readonly Installed[], bindings: Bindings): Languages {
  const plain = chosenFor(task, installed, bindings);
  const all: Languages[] = plain ? [directions(plain.task)] : [];
  for (const key of Object.keys(bindings).filter((one) => one.startsWith(`${task}:`))) {
    const [first = '', second] = key.slice(task.length + 1).split('/');
    const to = second ?? first;
    const it = installed.find((one) => one.manifest.name === bindings[key])?.manifest.tasks.find((its) => its.name === task);
    if (!it) continue;
    const own = directions(it);
    all.push({ sources: second === undefined ? own.sources : [first], targets: to === '' ? own.targets : [to] });
  }
  const union = (pick: (one: Languages) => readonly string[]) => [...new Set(all.flatMap(pick))];
  return { sources: union((one) => one.sources), targets: union((one) => one.targets) };
}

/** What stays when the user chooses a package for a task: the choice is for every language. */
export function rebound(bindings: Bindings, task: string, name: string): Bindings {
  const others = Object.entries(bindings).filter(([key]) => key !== task && !key.startsWith(`${task}:`));
  return { ...Object.fromEntries(others), [task]: name };
}
