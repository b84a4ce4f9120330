// ML Kit's summarizer on phones that have Gemini Nano. Never built on the project's own machines.
package dev.kobako.nativemodule

import android.content.Context
import com.google.mlkit.genai.common.FeatureStatus
import com.google.mlkit.genai.summarization.Summarization
import com.google.mlkit.genai.summarization.SummarizationRequest
import com.google.mlkit.genai.summarization.Summarizer
import com.google.mlkit.genai.summarization.SummarizerOptions

internal class SystemTasks(private val context: Context) {
  private val languages = mapOf(
    "en" to SummarizerOptions.Language.ENGLISH,
    "ja" to SummarizerOptions.Language.JAPANESE,
    "ko" to SummarizerOptions.Language.KOREAN,
  )
  private val lengths = mapOf(
    "short" to SummarizerOptions.OutputType.ONE_BULLET,
    "medium" to SummarizerOptions.OutputType.TWO_BULLETS,
    "long" to SummarizerOptions.OutputType.THREE_BULLETS,
  )

  /** Never true for what would have to be downloaded first. Android brings no translator that works without that. */
  fun ready(task: String, source: String): Boolean =
    task == "summarize" && source in languages &&
      with(source, "short") { it.checkFeatureStatus().get() == FeatureStatus.AVAILABLE }

  fun summarize(text: String, source: String, length: String): String {
    val summary = with(source, length) { it.runInference(SummarizationRequest.builder(text).build()).get().summary }
    return if (length == "short") summary.trim().removePrefix("* ") else summary // one bullet is no list
  }

  private fun <T> with(source: String, length: String, work: (Summarizer) -> T): T {
    val options = SummarizerOptions.builder(context)
      .setInputType(SummarizerOptions.InputType.ARTICLE)
      .setOutputType(lengths.getValue(length))
      .setLanguage(languages.getValue(source))
      .build()
    val summarizer = Summarization.getClient(options)
    try {
      return work(summarizer)
    } finally {
      summarizer.close()
    }
  }
}
