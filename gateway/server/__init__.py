"""What stands over uvicorn: connections, their limits in time and bytes, and a stop in two steps. It knows no word of OpenAI's."""
