/** Text that goes in and text that comes out. */
import * as Clipboard from 'expo-clipboard';
import { useState } from 'react';
import { Text, TextInput, View, type TextInputProps } from 'react-native';

import { useWords } from '../i18n';
import { canShare, shareText } from '../platform/device';
import { Card, IconButton, styles, Words } from './parts';
import { useColors } from './theme';

// browsers that know it let the field grow with its text; on a phone a multiline field does so by itself
const GROWING = { fieldSizing: 'content', maxHeight: 320 } as object;

/** The large field of a task, with paste and clear. */
export function SourceField({ label, value, onChange }: { label: string; value: string; onChange: (text: string) => void }) {
  const colors = useColors();
  const t = useWords();
  const paste = async () => {
    const text = await Clipboard.getStringAsync().catch(() => '');
    if (text) onChange(text);
  };
  return (
    <Card>
      <TextInput
        aria-label={label}
        multiline
        value={value}
        onChangeText={onChange}
        placeholder={t('typeHere')}
        placeholderTextColor={colors.soft}
        style={[styles.input, GROWING, { color: colors.text }]}
      />
      <View style={styles.between}>
        <Words small soft>
          {value.length > 0 ? value.length.toLocaleString() : ''}
        </Words>
        <View style={{ flexDirection: 'row' }}>
          <IconButton label={t('paste')} icon="clipboard-outline" onPress={() => void paste()} />
          <IconButton label={t('clear')} icon="close-circle-outline" disabled={value === ''} onPress={() => onChange('')} />
        </View>
      </View>
    </Card>
  );
}

/** What the model says, as it comes. */
export function ResultCard({ label, text, busy }: { label: string; text: string; busy: boolean }) {
  const colors = useColors();
  const t = useWords();
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await Clipboard.setStringAsync(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 2000);
  };
  const share = () => void shareText(text).catch(() => undefined); // taken back by the user
  return (
    <Card label={label}>
      <Words small soft>
        {label}
      </Words>
      <Text testID="result" selectable aria-live="polite" aria-busy={busy} style={{ fontSize: 18, lineHeight: 28, color: colors.text }}>
        {text}
      </Text>
      {!busy && (
        <View style={[styles.row, { justifyContent: 'flex-end' }]}>
          {copied && <Words small soft>{t('copied')}</Words>}
          <IconButton label={t('copy')} icon="copy-outline" onPress={() => void copy()} />
          {canShare() && <IconButton label={t('share')} icon="share-outline" onPress={share} />}
        </View>
      )}
    </Card>
  );
}

/** A one-line (or, with `multiline`, taller) field with its name above it. */
export function LabelledField({ label, ...input }: { label: string } & TextInputProps) {
  const colors = useColors();
  return (
    <View style={{ gap: 4 }}>
      <Words small soft>
        {label}
      </Words>
      <TextInput
        aria-label={label}
        autoCapitalize="none"
        autoCorrect={false}
        placeholderTextColor={colors.soft}
        {...input}
        style={[styles.field, { color: colors.text, backgroundColor: colors.field, borderColor: colors.line }]}
      />
    </View>
  );
}
