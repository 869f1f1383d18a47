"""Questions answered from a file, with LangChain: the gateway finds the passages, a chat model of your choice answers from them.

    pip install langchain-openai numpy
    OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=sk-gw-… python langchain_rag.py notes.txt "a question"

Passages are separated by empty lines. With CHAT_BASE_URL, CHAT_MODEL and CHAT_API_KEY (any OpenAI-compatible server) the answer is
written by that model; without them what it would be asked is printed.
"""

import os
import sys
from pathlib import Path

from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

PROMPT = ChatPromptTemplate.from_template(
    "Answer from these passages alone. Where they do not tell, say so.\n\n{passages}\n\nQuestion: {question}"
)


def main() -> None:
    passages = [part.strip() for part in Path(sys.argv[1]).read_text(encoding="utf-8").split("\n\n") if part.strip()]
    # Texts instead of token arrays: tiktoken need not fetch its ranks. The gateway takes either.
    embeddings = OpenAIEmbeddings(model="all-MiniLM-L6-v2", check_embedding_ctx_length=False)
    store = InMemoryVectorStore.from_texts(passages, embeddings)
    found = store.similarity_search(sys.argv[2], k=2)
    asked = PROMPT.invoke({"passages": "\n\n".join(document.page_content for document in found), "question": sys.argv[2]})
    if "CHAT_MODEL" not in os.environ:
        print(asked.to_string())
        return
    chat = ChatOpenAI(
        model=os.environ["CHAT_MODEL"], base_url=os.environ.get("CHAT_BASE_URL"), api_key=os.environ.get("CHAT_API_KEY", "none")
    )
    print(chat.invoke(asked).content)


if __name__ == "__main__":
    main()
