// Pictures as queries: dropped, pasted, chosen, or taken with the camera.

const LONGEST = 1600; // larger ones are shrunk here: no encoder sees more, and uploads stay small
const $ = (id) => document.getElementById(id);

/** Wire all ways in; `add(blob, name)` gets each picture. */
export function acceptPictures(add) {
  const take = async (files) => {
    for (const file of files) add(await shrink(file), file.name || "Pasted picture");
  };
  $("upload").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", (event) => {
    take([...event.target.files]);
    event.target.value = "";
  });
  document.addEventListener("paste", (event) => {
    const files = picturesOf(event.clipboardData);
    if (!files.length) return;
    event.preventDefault();
    take(files);
  });
  let depth = 0; // dragenter and dragleave come for every child
  const holdsFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const shade = (shown) => ($("drop").hidden = !shown);
  document.addEventListener("dragenter", (event) => {
    if (holdsFile(event)) shade(++depth > 0);
  });
  document.addEventListener("dragleave", (event) => {
    if (holdsFile(event)) shade(--depth > 0);
  });
  document.addEventListener("dragover", (event) => holdsFile(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!holdsFile(event)) return;
    event.preventDefault();
    depth = 0;
    shade(false);
    take(picturesOf(event.dataTransfer));
  });
  offerCamera((blob) => add(blob, "From the camera"));
}

function picturesOf(transfer) {
  return [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));
}

// What this browser cannot decode goes as it is: the server tells what it reads.
async function shrink(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return file;
  }
  const scale = LONGEST / Math.max(bitmap.width, bitmap.height);
  if (scale >= 1) return file;
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const type = file.type === "image/png" ? "image/png" : "image/jpeg";
  return (await new Promise((done) => canvas.toBlob(done, type, 0.92))) ?? file;
}

// The button is there only where the browser knows of a camera and lets the page use it.
async function offerCamera(add) {
  const media = navigator.mediaDevices;
  if (!media?.getUserMedia || !media.enumerateDevices) return;
  const devices = await media.enumerateDevices().catch(() => []);
  if (!devices.some((device) => device.kind === "videoinput")) return;
  const [dialog, video] = [$("camera-dialog"), $("video")];
  let stream = null;
  $("camera").hidden = false;
  $("camera").addEventListener("click", async () => {
    try {
      stream = await media.getUserMedia({ video: { facingMode: "environment" } });
    } catch {
      $("camera").disabled = true;
      $("camera").title = "The camera may not be used";
      return;
    }
    video.srcObject = stream;
    dialog.showModal();
  });
  $("camera-cancel").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    stream?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  });
  $("shoot").addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => blob && add(blob), "image/jpeg", 0.92);
    dialog.close();
  });
}
