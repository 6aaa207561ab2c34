/* Browsers start no worker from a page that was opened as a file. This one does its work in a
   hidden frame, so that the search works without a server. Served pages keep real workers. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.appendChild(this.frame)
      const inside = this.frame.contentDocument
      inside.open()
      inside.write(
        "<!doctype html><html><body><script>" +
          "window.postMessage = function (data) { parent.postMessage(data, '*') };" +
          "window.importScripts = function () { var all = Promise.resolve();" +
          "[].forEach.call(arguments, function (src) { all = all.then(function () {" +
          "return new Promise(function (done) { var s = document.createElement('script');" +
          "s.src = src; s.onload = done; document.body.appendChild(s) }) }) }); return all };" +
          "<\/script><script src=\"" + encodeURI(String(url)) + "\"><\/script></body></html>"
      )
      inside.close()
      this.send = this.frame.contentWindow.dispatchEvent.bind(this.frame.contentWindow)
      this.hear = (event) => {
        if (event.source !== this.frame.contentWindow) return
        const copy = new MessageEvent("message", { data: event.data })
        this.dispatchEvent(copy)
        if (this.onmessage) this.onmessage(copy)
      }
      addEventListener("message", this.hear)
    }
    postMessage(data) {
      const give = () => this.send(new MessageEvent("message", { data }))
      if (this.frame.contentDocument.readyState === "complete") give()
      else this.frame.addEventListener("load", give, { once: true })
    }
    terminate() {
      removeEventListener("message", this.hear)
      this.frame.remove()
    }
  }
}
