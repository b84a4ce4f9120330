/** Apple's language model and translator on iOS 26 and later, ML Kit's summarizer on Android phones with Gemini Nano. */
import { systemReady, systemRun } from '../../modules/kobako-native';
import { AppError, asAppError, checkAbort } from '../errors';
import type { SystemTasks } from './system.types';

export const systemTasks: SystemTasks = {
  ready: ({ task, source, target }) => systemReady(task, source, target).catch(() => false),
  async run(ask, { signal, onText }) {
    if (!(await this.ready(ask))) throw new AppError('system', `${ask.task} ${ask.source} → ${ask.target}`);
    checkAbort(signal);
    // neither can be stopped: after a stop the answer comes all the same, and is not listened to
    const stopped = new Promise<never>((_, reject) =>
      signal.addEventListener('abort', () => reject(new AppError('aborted', 'stopped')), { once: true }),
    );
    try {
      const { task, text, source, target, length } = ask;
      const whole = await Promise.race([systemRun(task, text, source, target, length), stopped]);
      onText(whole);
      return whole.trim();
    } catch (error) {
      throw asAppError(error, 'engine');
    }
  },
};
