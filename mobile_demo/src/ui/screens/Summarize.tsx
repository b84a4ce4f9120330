/** A text of any length, made short. */
import { useState } from 'react';
import { View } from 'react-native';

import { useWords } from '../../i18n';
import { packageFor } from '../../state/engine';
import { packages } from '../../state/packages';
import { remember, settings } from '../../state/settings';
import { useStore } from '../../state/store';
import { detect, LANGUAGES } from '../../tasks/languages';
import { summarize, type SummaryLength } from '../../tasks/run';
import { ResultCard, SourceField } from '../fields';
import { Segments } from '../parts';
import { ActionRow, History, isBusy, NoPackage, RunNotice } from '../taskparts';
import { space } from '../theme';
import { useTask } from '../useTask';

export function SummarizeScreen({ onOpenModels }: { onOpenModels: () => void }) {
  const t = useWords();
  const { installed, ready } = useStore(packages);
  const { system } = useStore(settings);
  const [text, setText] = useState('');
  const [length, setLength] = useState<SummaryLength>('short');
  const { run, begin, stop, reset } = useTask();
  const found = packageFor('summarize', installed);
  if (!ready) return null;
  const language = detect(text, Object.keys(LANGUAGES)) ?? 'en';
  const ask = { task: 'summarize', source: language, target: language } as const;
  if (!found && !system) return <NoPackage reason="noPackageSummarize" onOpenModels={onOpenModels} system={ask} />;

  const start = async () => {
    const output = await begin({ ...ask, text, length }, found, (context) => summarize(context, text, length));
    if (output) remember({ task: 'summarize', input: text.trim(), output });
  };
  const lengths = (['short', 'medium', 'long'] as const).map((value) => ({ value, label: t(value) }));
  return (
    <View style={{ gap: space.l }}>
      <SourceField label={t('textToSummarize')} value={text} onChange={setText} />
      <Segments label={t('length')} value={length} options={lengths} onChange={setLength} />
      <ActionRow run={run} label={t('summarize')} icon="sparkles-outline" disabled={text.trim() === ''} onStart={() => void start()} onStop={stop} />
      <RunNotice run={run} />
      {run.text !== '' && <ResultCard label={t('summary')} text={run.text} busy={isBusy(run)} />}
      <History
        task="summarize"
        onUse={(entry) => {
          reset();
          setText(entry.input);
        }}
      />
    </View>
  );
}
