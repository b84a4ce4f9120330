// What JavaScript sees of the native side on Android. Never built on the project's own machines: see the app's README.
package dev.kobako.nativemodule

import android.content.Context
import android.os.Debug
import expo.modules.kotlin.modules.Module
import expo.modules.kotlin.modules.ModuleDefinition
import java.io.File
import java.net.URI
import java.security.MessageDigest

class KobakoNativeModule : Module() {
  override fun definition() = ModuleDefinition {
    Name("KobakoNative")

    AsyncFunction("sha256") { uri: String ->
      val digest = MessageDigest.getInstance("SHA-256")
      File(URI(uri)).inputStream().use { input ->
        val block = ByteArray(1 shl 20)
        while (true) {
          val count = input.read(block)
          if (count < 0) break
          digest.update(block, 0, count)
        }
      }
      digest.digest().joinToString("") { "%02x".format(it) }
    }

    AsyncFunction("systemReady") { task: String, source: String, _: String ->
      SystemTasks(context()).ready(task, source)
    }
    AsyncFunction("systemRun") { _: String, text: String, source: String, _: String, length: String ->
      SystemTasks(context()).summarize(text, source, length)
    }

    Function("residentBytes") {
      val memory = Debug.MemoryInfo()
      Debug.getMemoryInfo(memory)
      memory.totalPss * 1024.0
    }
  }
  private fun context(): Context = requireNotNull(appContext.reactContext) { "the app is not there any more" }
}
