/** A task under way on a screen: text that grows, what is happening, and a way to stop. */
import { useCallback, useEffect, useRef, useState } from 'react';

import { asAppError, type AppError } from '../errors';
import type { Installed } from '../packages/library';
import type { Task } from '../packages/manifest';
import { systemTasks } from '../platform/system';
import type { SystemAsk } from '../platform/system.types';
import { borrow } from '../state/engine';
import { settings } from '../state/settings';
import type { Doing } from '../tasks/bindings';
import type { TaskContext } from '../tasks/run';

export interface TaskRun {
  readonly phase: 'idle' | 'loading' | 'working' | 'stopped';
  readonly text: string;
  readonly part: { readonly part: number; readonly parts: number } | null;
  readonly error: AppError | null;
}

const IDLE: TaskRun = { phase: 'idle', text: '', part: null, error: null };

type Work = (context: TaskContext) => Promise<string>;

interface Hooks extends Pick<TaskContext, 'onPart'> {
  readonly onText: (piece: string) => void;
  /** Told when the model is loaded and the work begins. */
  readonly onReady: () => void;
}

export function useTask() {
  const [run, setRun] = useState<TaskRun>(IDLE);
  const controller = useRef<AbortController | null>(null);
  useEffect(() => () => controller.current?.abort(), []);

  const follow = useCallback(async (work: (mine: AbortController, hooks: Hooks) => Promise<string>): Promise<string | null> => {
    controller.current?.abort();
    const mine = (controller.current = new AbortController());
    setRun({ ...IDLE, phase: 'loading' });
    let text = '';
    const hooks: Hooks = {
      onReady: () => setRun({ ...IDLE, phase: 'working' }),
      onText: (piece) => {
        text += piece;
        setRun((now) => ({ ...now, text }));
      },
      onPart: (part, parts) => setRun((now) => ({ ...now, part: parts > 1 ? { part, parts } : null })),
    };
    try {
      const whole = await work(mine, hooks);
      setRun({ ...IDLE, text: whole });
      return whole;
    } catch (error) {
      const known = asAppError(error, 'engine');
      setRun({ ...IDLE, text, phase: known.code === 'aborted' ? 'stopped' : 'idle', error: known.code === 'aborted' ? null : known });
      return null;
    }
  }, []);

  const byPackage = useCallback(
    (installed: Installed, task: Task, work: Work) =>
      follow((mine, { onReady, ...hooks }) =>
        borrow(installed, mine, ({ engine, model }) => {
          onReady();
          return work({ engine, model, task, signal: mine.signal, ...hooks });
        }),
      ),
    [follow],
  );
  const bySystem = useCallback(
    (ask: SystemAsk) =>
      follow((mine, { onReady, onText }) => {
        onReady();
        return systemTasks.run(ask, { signal: mine.signal, onText });
      }),
    [follow],
  );
  /**
   * By the package, unless the user wants the platform's own models and these are ready or all there is. The whole answer,
   * or null when it was stopped or failed.
   */
  const begin = useCallback(
    async (ask: SystemAsk, found: Doing | null, work: Work) => {
      const own = settings.get().system && (!found || (await systemTasks.ready(ask)));
      return own ? bySystem(ask) : found && byPackage(found.installed, found.task, work);
    },
    [byPackage, bySystem],
  );

  const stop = useCallback(() => controller.current?.abort(), []);
  const reset = useCallback(() => setRun(IDLE), []);
  return { run, begin, stop, reset };
}
