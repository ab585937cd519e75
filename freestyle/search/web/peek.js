// On a phone the pad fills the screen: the best photos look in from below it.

const $ = (id) => document.getElementById(id);

/** A strip with the best photos while the grid is out of sight; `followed()` when it is touched. */
export class Peek {
  constructor(followed) {
    this.strip = $("peek");
    this.seen = false;
    this.any = false;
    const observer = new IntersectionObserver(
      ([grid]) => {
        this.seen = grid.isIntersecting;
        this.#update();
      },
      { rootMargin: "0px 0px -120px" }, // as good as out of sight
    );
    observer.observe($("grid"));
    this.strip.addEventListener("click", () => {
      $("found-title").scrollIntoView();
      followed();
    });
  }

  show(found, images) {
    const words = document.createElement("span");
    words.textContent = `See ${found}`;
    this.strip.replaceChildren(...images, words);
    this.any = images.length > 0;
    this.#update();
  }

  hide() {
    this.any = false;
    this.#update();
  }

  #update() {
    this.strip.hidden = this.seen || !this.any;
  }
}
